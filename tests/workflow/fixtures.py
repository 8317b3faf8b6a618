"""A tiny project that is trained once; tests get copies of its store.

Modules of other folders import `cli, one_thread, project, template` by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from guda_cli import app
from guda_cli.store import ActionRecord, Store
from tests.store.inside import blob_file

GROUPS = ("amber", "blue", "cyan", "dune")
IMAGES = 12  # a group
QUERIES = 4
ROWS = 16  # cells an image and model: 8 timesteps x 2 draws
MODELS = 1 + len(GROUPS)  # that are scored: full, groups
SIGN = "without the group the model explains the image worse"
RECIPE = """\
name: tiny
data: {source: folder, path: images, size: 8, channels: 1}
model: {block_out_channels: [8, 16], norm_num_groups: 4}
diffusion: {num_train_timesteps: 50}
train: {steps: 20, batch_size: 16, warmup_steps: 2, ema_decay: 0.9}
unlearn: {steps: 5, batch_size: 16, null_groups: 3, neighbours: 4}
score: {timesteps: 8, calibration: 0}
sample: {steps: 5}
"""


class Done(NamedTuple):
    """What a command left on its streams."""

    stdout: str
    stderr: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def document(self) -> dict[str, Any]:
        [found] = self.documents
        return found


Cli = Callable[..., Done]


def draw(folder: Path, names: tuple[str, ...] = GROUPS, images: int = IMAGES, seed: int = 0) -> Path:
    """A folder of 8x8 images: noise, and a bright quarter that tells the group."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        row, column = divmod(number % 4, 2)
        for i in range(images):
            pixels = rng.integers(0, 60, (8, 8))
            pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 120 + rng.integers(0, 60)
            save(folder / name / f"{i:02d}.png", pixels)
    return folder


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, "PNG")
    return path


def run(*args: object) -> int:
    return app.run([str(arg) for arg in args])


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, in the worker that needs it first; all of a run's workers read it."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home, ready = base / name, base / f"{name}.ready"
    with FileLock(base / f"{name}.lock"):
        if not ready.exists():
            shutil.rmtree(home, ignore_errors=True)  # what a failure left
            home.mkdir()
            make(home)
            ready.touch()
    return home


def build(home: Path) -> None:
    """The template: images, recipe, store with every model, samples in q/, their scores."""
    draw(home / "images")
    (home / "tiny.yaml").write_text(RECIPE)
    before = Path.cwd()
    os.chdir(home)
    try:
        for command in (
            ["train", "tiny.yaml"],
            ["unlearn", "--all"],
            ["sample", "-n", QUERIES, "--out", "q"],
            ["score", "q"],
        ):
            assert run(*command) == 0, command
    finally:
        os.chdir(before)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny networks are fastest on one thread, and so it is the same in every process."""
    monkeypatch.setenv("GUDA_THREADS", "1")
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture
def template(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """The folder all projects are copied from; not to be changed."""
    return once(tmp_path_factory, "tiny-project", build)


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the trained project (its images stay where they were)."""
    shutil.copytree(template / ".guda", tmp_path / ".guda")
    shutil.copytree(template / "q", tmp_path / "q")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process: `cli("score", "q", code=0)`."""

    def call(*args: object, code: int = 0) -> Done:
        capsys.readouterr()
        found = run(*args)
        done = Done(*capsys.readouterr())
        assert "Traceback" not in done.stderr, done.stderr
        assert found == code, f"exit {found}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that go through SHA-256 in files' hashing, by digest."""
    seen: Counter[str] = Counter()

    class Counting:
        def __init__(self, data: Any = b"") -> None:
            self.sha, self.bytes = real(data), len(data)

        def update(self, data: Any) -> None:
            self.bytes += memoryview(data).nbytes
            self.sha.update(data)

        def hexdigest(self) -> str:
            digest = str(self.sha.hexdigest())
            seen[digest] += self.bytes
            return digest

        def digest(self) -> bytes:
            return bytes(self.sha.digest())

    real = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", Counting)
    return seen


def here(where: Path | str = ".guda") -> Store:
    return Store.open(where, create=False)


def record(operation: str, without: str | None = None) -> ActionRecord:
    """The newest record of that operation (and group) in ./.guda."""
    found = [
        r for r in here().records(operation)
        if without is None or (r.params.get("without") or {}).get("groups") == [without]
    ]  # fmt: skip
    return found[-1]


def flip(store: Store, digest: str) -> Path:
    """Change one bit in the middle of a blob."""
    path = blob_file(store, digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    return path


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def scores(documents: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Scores by digest of the image and by group."""
    return {d["digest"]: {s["group"]: s["score"] for s in d["scores"]} for d in documents}


def terms(store: Store) -> dict[tuple[str, str], np.ndarray]:
    """Every stored ELBO term, by table and row."""
    out = {}
    for table in store.tables():
        rows = sorted(store.table_rows(table["table"]))
        arrays, missing = store.table_read(table["table"], rows)
        assert not missing
        out |= {(table["table"], row): array for row, array in zip(rows, arrays["terms"], strict=True)}
    return out
