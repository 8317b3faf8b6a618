"""A full disk and a store that cannot be written."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflow.fixtures import Cli, tree

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A small file system in memory: `mount("size=300k")`."""
    place = tmp_path / "small"
    place.mkdir()

    def make(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.name != "posix" or shutil.which("mount") is None:
            pytest.skip("no mount command")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        return place

    yield make
    if os.path.ismount(place):
        gc.collect()  # weights that are mapped from files there
        subprocess.run(["umount", str(place)], check=True)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def full_disk(done: str) -> None:
    assert "full" in done or "No space" in done
    assert "try: " in done


@pytest.mark.parametrize("kilobytes", [16, 64, 160])
def test_training_on_a_full_disk(
    cli: Cli, project: Path, template: Path, mount: Mount, kilobytes: int
) -> None:
    store = mount(f"size={kilobytes}k") / "store"
    done = cli("train", template / "tiny.yaml", "--store", store, code=3)
    full_disk(done.stderr)
    if (store / "format.json").exists():
        cli("store", "verify", "--store", store)
    subprocess.run(["mount", "-o", "remount,size=8m", str(store.parent)], check=True)
    cli("train", template / "tiny.yaml", "--store", store)
    cli("store", "verify", "--store", store)


def test_unlearning_and_scoring_on_a_full_disk(cli: Cli, project: Path, mount: Mount) -> None:
    store = mount("size=16m") / "store"
    shutil.copytree(project / ".guda", store)
    filler = store.parent / "filler"
    free = os.statvfs(store)
    filler.write_bytes(b"x" * (free.f_bavail - 4) * free.f_frsize)
    place = ["--store", store]
    full_disk(
        cli("unlearn", "--group", "blue", "--no-null", "--set", "unlearn.steps=6", *place, code=3).stderr
    )
    full_disk(cli("score", "q", "--seed", 5, *place, code=3).stderr)
    cli("store", "verify", *place)
    assert "no model was run" in cli("score", "q", *place).stderr, "what is stored is still served"
    filler.unlink()
    cli("score", "q", "--seed", 5, *place)
    cli("store", "verify", *place)


@pytest.mark.parametrize("kilobytes", [4, 12, 40, 80])
@pytest.mark.parametrize("there", [False, True])
def test_exporting_to_a_full_disk_leaves_nothing(
    cli: Cli, project: Path, mount: Mount, kilobytes: int, there: bool
) -> None:
    """The same command then works where there is room again."""
    out = mount(f"size={kilobytes}k") / "out"
    if there:
        out.mkdir()
    full_disk(cli("store", "export", "unlearn blue", out, code=3).stderr)
    assert [*out.parent.rglob("*")] == ([out] if there else [])
    subprocess.run(["mount", "-o", "remount,size=8m", str(out.parent)], check=True)
    cli("store", "export", "unlearn blue", out)
    cli("store", "export", "unlearn blue", "here")
    files = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    here = Path("here")
    assert files == {str(p.relative_to(here)): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert "is not empty" in cli("store", "export", "unlearn blue", out, code=3).stderr


def test_what_a_killed_export_left_is_in_nobodys_way(cli: Cli, project: Path) -> None:
    (project / ".out.guda.part" / "unet").mkdir(parents=True)
    cli("store", "export", "unlearn blue", "out")
    assert sorted(path.name for path in project.iterdir() if "out" in path.name) == ["out"]
    stood = project / "stood"
    stood.mkdir()
    os.chdir(stood)
    cli("store", "export", "unlearn blue", ".", "--store", project / ".guda")
    assert (Path.cwd() / "model_index.json").is_file()


def test_a_page_that_the_disk_has_no_room_for_leaves_nothing(cli: Cli, project: Path, mount: Mount) -> None:
    place = mount("size=8k")
    cli("report", "--html", place / "page.html", code=3)
    assert [*place.iterdir()] == []


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--set", "train.lr=2e-3"],
        ["train", "--without", "blue"],
        ["train", "--each-group", "--seeds", "2,3"],
        ["unlearn", "--group", "blue", "--no-null", "--set", "unlearn.steps=6"],
    ],
)
def test_a_read_only_store_is_told_before_the_work(
    cli: Cli, project: Path, mount: Mount, command: list[str]
) -> None:
    store = mount("size=16m") / "store"
    shutil.copytree(project / ".guda", store)
    subprocess.run(["mount", "-o", "remount,ro", str(store.parent)], check=True)
    done = cli(*command, "--verbose", "--store", store, code=3)
    assert "read-only" in done.stderr
    assert "try: " in done.stderr or "fix: " in done.stderr
    assert ": begun" not in done.stderr


def test_a_read_only_store(cli: Cli, project: Path, mount: Mount) -> None:
    store = mount("size=16m") / "store"
    shutil.copytree(project / ".guda", store)
    subprocess.run(["mount", "-o", "remount,ro", str(store.parent)], check=True)
    before = tree(store)
    place = ["--store", store]
    done = cli("score", "q", "--json", *place)
    assert done.stdout == cli("score", "q", "--json").stdout
    judged = ["--set", "score.calibration=44"]  # chosen, and scored, without being kept
    assert cli("score", "q", "--json", *judged, *place).stdout == cli("score", "q", "--json", *judged).stdout
    cli("report", "--html", project / "r.html", *place)
    cli("status", *place)
    cli("store", "ls", *place)
    cli("train", *place)
    cli("sample", "-n", 4, "--out", project / "again", *place)
    cli("score", "q", "--dry-run", "--seed", 5, *place)
    done = cli("train", "--set", "train.lr=2e-3", *place, code=3)
    assert "read-only" in done.stderr or "cannot be written" in done.stderr
    done = cli("unlearn", "--group", "blue", "--set", "unlearn.steps=6", "--no-null", *place, code=3)
    assert "read-only" in done.stderr or "cannot be written" in done.stderr
    new = cli("score", "q/00000.png", "--seed", 5, "--json", *place)
    assert new.stdout == cli("score", "q/00000.png", "--seed", 5, "--json").stdout, "scored, if not kept"
    assert tree(store) == before
