"""A real `guda view` on a copy of the tiny trained store, and commands beside it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.workflow.fixtures import build, once, save

PATIENCE = 120.0
ROOT = Path(__file__).parent.parent.parent
# Runs `guda` and says in a file whether it had to do the work itself.
WRAPPER = """
import sys
from pathlib import Path
told, sys.argv[:] = Path(sys.argv[1]), ["guda", *sys.argv[2:]]
from guda_cli.start import main
try:
    main()
finally:
    told.write_text("here" if "guda_cli.app" in sys.modules else "there")
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended, and who ran it."""

    code: int
    out: bytes
    err: bytes
    there: bool = field(compare=False)


@dataclass
class Viewed:
    """A folder with a store, a running `guda view` on it, and the environment of both."""

    folder: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[str]
    port: int
    address: str

    @property
    def socket(self) -> Path:
        return self.folder / ".guda" / "resident" / "socket"

    def start(self, *args: str, **more: str) -> subprocess.Popen[bytes]:
        told = self.folder / f"told-{time.monotonic_ns()}"
        return command(self.folder, told, args, {**self.environment, **more})

    def run(self, *args: str, stdin: bytes = b"", **more: str) -> Ran:
        return run(self.folder, args, {**self.environment, **more}, stdin)

    @property
    def resident(self) -> int:
        """The process id of the one with the models."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])


def command(
    folder: Path, told: Path, args: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", WRAPPER, str(told), *args],
        cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe,
    )  # fmt: skip


def run(folder: Path, args: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> Ran:
    told = folder / f"told-{time.monotonic_ns()}"
    process = command(folder, told, args, environment)
    out, err = process.communicate(stdin, timeout=PATIENCE)
    there = told.read_text() == "there"
    told.unlink()
    return Ran(process.returncode, out, err, there)


def copied(template: Path, folder: Path) -> Path:
    """A folder with the trained store, its samples and new images."""
    shutil.copytree(template / ".guda", folder / ".guda")
    shutil.copytree(template / "q", folder / "q")
    rng = np.random.default_rng(5)
    for number in range(8):
        save(folder / "new" / f"{number}.png", rng.integers(0, 255, (8, 8)))
    return folder


@pytest.fixture(scope="package", autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches what is started here, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="package")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for all processes: one in which they are the same guda."""
    home = str(tmp_path_factory.mktemp("home"))
    known = {name: value for name, value in os.environ.items() if not name.startswith(("GUDA_", "XDG_"))}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        known.pop(name, None)
    known["COLUMNS"] = ""  # readline, where pytest loads it, sets it behind Python's back
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return known | {"HOME": home, "GUDA_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny trained project that other tests share; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUDA_THREADS", "1")
        return once(tmp_path_factory, "tiny-project", build)


def view(folder: Path, environment: Mapping[str, str], *more: str) -> Viewed:
    """Start `guda view`, and wait until its models are there."""
    with (folder / "view.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "guda_cli", "view", "--no-open", *more],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    assert process.stdout
    address = process.stdout.readline().strip()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/[\w-]{43}", address)
    assert found, (address, (folder / "view.err").read_text())
    made = Viewed(folder, environment, process, int(found[1]), address)
    give_up = time.monotonic() + PATIENCE
    while not made.socket.exists():
        assert process.poll() is None, (folder / "view.err").read_text()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return made


@pytest.fixture(scope="package")
def viewed(
    trained: Path, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Viewed]:
    """One `guda view` for all tests that do not end it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only on Linux a process can be forked with its models")
    made = view(copied(trained, tmp_path_factory.mktemp("viewed")), surroundings)
    yield made
    end(made)


def end(viewed: Viewed) -> int:
    """Ctrl-C; its exit code."""
    with viewed.process as process:  # closes its streams
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(30)
        finally:
            process.kill()
