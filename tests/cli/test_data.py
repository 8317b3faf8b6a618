"""`guda data ls|get`, with a server on this machine and data sets made for the test."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest

from guda_cli import app
from guda_cli.data import fetching, known_sets
from guda_cli.download import Wanted
from guda_cli.settings.lookup import shipped
from tests.data.test_download import Site, site, whole
from tests.workflow.fixtures import Cli, cli

__all__ = ["cli", "site"]

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def wanted(name: str, data: bytes) -> Wanted:
    return Wanted(name, len(data), hashlib.sha256(data).hexdigest())


def idx(values: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, values.ndim)) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def clothes(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """fashion-mnist with 40 images of noise, on the server, and nowhere else."""
    rng = np.random.default_rng(0)
    files = {
        "train-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (40, 28, 28))),
        "train-labels-idx1-ubyte.gz": idx(np.arange(40) % 10),
    }
    site.answers |= {f"/m/{name}": whole(data) for name, data in files.items()}
    own = dataclasses.replace(
        known_sets.find("fashion-mnist"),
        files=tuple(wanted(name, data) for name, data in files.items()),
        mirrors=("/no/such/folder", site.url("/gone/"), site.url("/m/")),
    )
    sets = tuple(own if known.name == own.name else known for known in known_sets.SETS)
    monkeypatch.setattr(known_sets, "SETS", sets)
    monkeypatch.chdir(tmp_path)
    return files


def test_ls(guda, documents) -> None:
    [document] = documents(guda("data", "ls", "--json", code=0).stdout)
    assert [row["name"] for row in document["sets"]] == list(known_sets.NAMES)
    text = guda("data", "ls", code=0).stdout
    for row in document["sets"]:
        assert row["name"] in text
        assert set(row["recipes"]) <= set(shipped())
        assert bool(row["files"]) == (row["bytes"] > 0)
    packages = document["sets"][-1]["files"]
    assert len(packages) == 11


def test_get_and_go_on(cli: Cli, clothes: dict[str, bytes], documents) -> None:
    done = cli("data", "get", "fashion-mnist")
    assert "404" in done.stderr, "a mirror that has it not is said, and the next one asked"
    assert "trying the next mirror" in done.stderr
    command = done.stdout.strip()
    assert {p.name for p in Path("fashion-mnist").iterdir()} == {*clothes, "classes.txt"}
    assert command == "guda train fashion-mnist --set data.path=fashion-mnist"
    [document] = documents(cli("data", "get", "fashion-mnist", "--json").stdout)
    assert document["command"] == command
    assert app.run([*shlex.split(command)[1:], "--dry-run"]) == 0
    rows = cli("groups", "--recipe", "fashion-mnist", "--set", "data.path=fashion-mnist", "--json")
    assert [row["images"] for row in rows.document["groups"]] == [4] * 10


def test_classes_have_their_names_in_any_folder(cli: Cli, clothes: dict[str, bytes]) -> None:
    cli("data", "get", "fashion-mnist", "--to", "elsewhere")
    Path("elsewhere/fashion-mnist").rename("x")
    rows = cli("groups", "--recipe", "fashion-mnist", "--set", "data.path=x", "--json").document["groups"]
    assert "Ankle boot" in {row["group"] for row in rows}


def test_nothing_foreign_is_overwritten(cli: Cli, clothes: dict[str, bytes], site: Site) -> None:
    Path("fashion-mnist").mkdir()
    mine = Path("fashion-mnist/train-labels-idx1-ubyte.gz")
    mine.write_text("mine")
    done = cli("data", "get", "fashion-mnist", code=3)
    assert "is there already" in done.stderr
    assert mine.read_text() == "mine"
    assert site.asked == [], "before anything is fetched"
    cli("data", "get", "fashion-mnist", "--force")
    assert mine.read_bytes() == clothes[mine.name]
    mine.unlink()
    mine.mkdir()
    cli("data", "get", "fashion-mnist", "--force", code=3)


def test_from_a_folder_and_another_address(cli: Cli, clothes: dict[str, bytes], site: Site) -> None:
    Path("have").mkdir()
    for name, data in clothes.items():
        Path("have", name).write_bytes(data)
    cli("data", "get", "fashion-mnist", "--from", "have", "--to", "a")
    assert site.asked == []
    cli("data", "get", "fashion-mnist", "--from", site.url("/m"), "--to", "b")
    done = cli("data", "get", "fashion-mnist", "--from", site.url("/none"), "--to", "c", code=3)
    assert "404" in done.stderr
    assert "guda data get fashion-mnist --from DIR" in done.stderr


def test_what_is_not_the_set_is_refused(cli: Cli, clothes: dict[str, bytes], site: Site) -> None:
    site.answers["/m/train-labels-idx1-ubyte.gz"] = whole(b"x" * len(clothes["train-labels-idx1-ubyte.gz"]))
    assert "SHA-256" in cli("data", "get", "fashion-mnist", code=3).stderr
    assert not Path("fashion-mnist/train-labels-idx1-ubyte.gz").exists()
    assert Path("fashion-mnist/train-images-idx3-ubyte.gz").exists(), "what came whole is kept"


def test_digits_need_nothing(guda, documents, tmp_path: Path) -> None:
    assert guda("data", "get", "digits", code=0).stdout == "guda train digits\n"
    [document] = documents(guda("data", "get", "digits", "--json", code=0).stdout)
    assert Path(document["path"]).name == "digits.csv.gz"
    assert list(tmp_path.iterdir()) == []
    assert "did you mean 'cifar10'?" in guda("data", "get", "cifar", code=2).stderr


def test_the_command_for_cifar_fits_its_layout(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = known_sets.find("cifar10")
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    records = np.random.default_rng(0).integers(0, 256, (40, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(40) % 10
    with tarfile.open(known.path, "w:gz") as archive:
        for name, data in (
            ("batches.meta.txt", "\n".join(names).encode()),
            ("data_batch_1.bin", records.tobytes()),
        ):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    words = shlex.split(known.command(Path(known.path)))
    for recipe in known.recipes:
        rows = cli("groups", "--recipe", recipe, *words[3:], "--json").document["groups"]
        assert [row["images"] for row in rows] == [4] * 10


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_files_are_the_published_ones(cli: Cli, tmp_path: Path) -> None:
    """Packed otherwise, they hold the same: the digests of the unpacked content say so."""
    cli("data", "get", "fashion-mnist", "--from", DEBIAN, "--to", tmp_path)


def test_emoji_styles_is_built(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one concept and two packages of our own; drawn for real where resvg_py is."""
    pytest.importorskip("resvg_py")
    monkeypatch.chdir(tmp_path)
    styles, files = {}, []
    Path("have").mkdir()
    for style, colour in (("red", "#f00"), ("blue", "#00f")):
        icons = {"icons": {"cat": {"body": f'<path fill="{colour}" d="M0 0h16v16H0z"/>'}}}
        info = {"license": {"spdx": "MIT", "url": "u"}, "author": {"name": style, "url": "u"}}
        name = known_sets.archive_name(f"@icons/{style}", "1.0.0")
        with tarfile.open(Path("have", name), "w:gz") as archive:
            for file, value in (
                ("icons", icons),
                ("info", info),
                ("package", {"name": style, "version": "1"}),
            ):
                data = json.dumps(value).encode()
                member = tarfile.TarInfo(f"package/{file}.json")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        files.append(wanted(name, Path("have", name).read_bytes()))
        entry = {"package": f"@icons/{style}", "version": "1.0.0", "icons": {}, "left_out": []}
        styles[style] = {**entry, "descriptors": ["a", "b", "c", "d"]}
    table = {"styles": styles, "objects": {"animals": ["cat"]}, "words": {}}
    for module in ("known_sets", "emoji_styles", "fetching"):
        monkeypatch.setattr(f"guda_cli.data.{module}.emoji_table", lambda: table)
    own = dataclasses.replace(known_sets.find("emoji-styles"), files=tuple(files))
    monkeypatch.setattr(known_sets, "SETS", (own,))
    done = cli("data", "get", "emoji-styles", "--from", "have")
    assert "licence of red: MIT" in done.stderr
    assert done.stdout.strip() == "guda train emoji-styles --set data.path=emoji-styles.tar"
    first = Path("emoji-styles.tar").read_bytes()
    with tarfile.open("emoji-styles.tar") as archive:
        assert archive.getnames()[2:] == ["blue/animals/cat.png", "red/animals/cat.png"]
    cli("data", "get", "emoji-styles", "--from", "none")  # it is there
    cli("data", "get", "emoji-styles", "--from", "have", "--force")
    assert Path("emoji-styles.tar").read_bytes() == first
    Path("emoji-styles.tar").write_text("mine")
    assert "is there already" in cli("data", "get", "emoji-styles", "--from", "have", code=3).stderr
    assert Path("emoji-styles.tar").read_text() == "mine"


def test_without_the_renderer(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = cli("data", "get", "emoji-styles", code=4)
    assert "pip install 'guda[emoji]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("recipe", "name"), [("cifar10", "cifar10"), ("emoji-styles", "emoji-styles")])
def test_a_recipe_without_its_images_says_how_to_get_them(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("train", recipe, "--dry-run"), ("groups", "--recipe", recipe)):
        assert f"try: guda data get {name}\n" in cli(*command, code=3).stderr
    Path("emoji-stiles.tar").touch()
    done = cli("train", recipe, "--set", "data.path=emoji-styles.tar", "--dry-run", code=3)
    assert "did you mean" in done.stderr, "a path that was mistyped"


def test_fetching_takes_its_first_source_that_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = dataclasses.replace(
        known_sets.find("cifar10"), mirrors=("/no/such", str(tmp_path), "https://example.invalid/")
    )
    assert list(fetching._sources(known, None)) == [str(tmp_path), "https://example.invalid/"]
    assert list(fetching._sources(known, "x")) == ["x"]
