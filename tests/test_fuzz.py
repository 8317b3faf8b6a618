"""`benchmarks/fuzz.py` finds what it looks for, and its seeds give the same input again."""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.errors import DataError
from tests.scripts import ROOT, load

fuzz = load("fuzz")
inputs = load("fuzz_inputs")


def raising(err: BaseException) -> Callable[[], object]:
    def run() -> None:
        raise err

    return run


def loading() -> None:
    held = bytearray(200 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])


def mapped_pages() -> mmap.mmap:
    """A file of 300 MB of which every page is in this process, and of a fork of it none."""
    with tempfile.TemporaryFile() as file:
        file.truncate(300 << 20)
        found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert found[:: 1 << 12].count(0)
    return found


def spinning() -> None:
    until = time.process_time() + 0.5
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (lambda: None, []),
        (raising(DataError("no image")), []),
        (raising(ZeroDivisionError("x")), ["exit 1"]),
        (raising(MemoryError()), ["memory"]),
        (raising(GeneratorExit()), ["traceback"]),
        (lambda: os.kill(os.getpid(), 9), ["signal 9"]),
        (lambda: time.sleep(60), ["hang"]),
        (loading, ["memory"]),
        (spinning, ["slow"]),
        (lambda: os.write(2, b"error: \x1b]0;x\x07"), ["control character"]),
        (lambda: os.write(1, "error: \u202e".encode()), ["control character"]),
        (lambda: os.write(1, "Größe 日本 − ±\n".encode()), []),
        (["recipes", "ls"], []),
        (["recipes", "show", "nothing"], []),
    ],
)
def test_faults(run: object, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("fuzz_inputs")  # as the script has it
    if run is loading:
        loading()  # what this process held, and has mapped of files, does not hide what the fork holds
    monkeypatch.setitem(module.KINDS, "made", lambda rng, home, work: run)
    for name, value in (("MOST_BYTES", 100 << 20), ("MOST_SECONDS", 0.3), ("PATIENCE", 3.0)):
        monkeypatch.setattr(fuzz, name, value)
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.3 if run is spinning else 20.0)
    with mapped_pages() if run is loading else contextlib.nullcontext():
        assert list(fuzz.one(tmp_path, "made", 0).faults()) == found


def test_a_seed_gives_the_same_input(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.png").write_bytes(b"x")
    for kind in ("recipe", "metadata", "prompt", "archive"):
        made = []
        for place in ("one", "two"):
            work = tmp_path / place / kind
            work.mkdir(parents=True)
            inputs.KINDS[kind](random.Random(f"{kind}:7"), tmp_path, work)
            files = [path for path in work.rglob("*") if path.is_file() and path.suffix != ".gz"]
            made.append({str(path.relative_to(work)): path.read_bytes() for path in files})
        assert made[0] == made[1]
        assert made[0] or kind == "archive"


@pytest.mark.slow
def test_some_of_every_kind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--count", "18"],
        capture_output=True, text=True, encoding="utf-8", env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seeds from 0" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("all               18")
