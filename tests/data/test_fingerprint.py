from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.data.sources import fingerprint, read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def test_a_folder_counts_by_names_sizes_and_times(
    folder: Callable[..., Path], two_groups: dict[str, bytes], tmp_path: Path
) -> None:
    path = folder(two_groups)
    spec = DataSpec(path=str(path))
    first = fingerprint(spec)
    assert first == fingerprint(spec)
    moved = tmp_path / "moved"
    shutil.copytree(path, moved)
    assert fingerprint(DataSpec(path=str(moved))) == first
    os.utime(path / "cat" / "0.png", (5, 5))
    second = fingerprint(spec)
    (path / "cat" / "0.png").write_bytes(b"longer" * 100)
    os.utime(path / "cat" / "0.png", (5, 5))
    third = fingerprint(spec)
    (path / "cat" / "0.png").rename(path / "cat" / "00.png")
    fourth = fingerprint(spec)
    (path / "cat" / ".hidden").write_bytes(b"")
    assert len({first, second, third, fourth}) == 4
    assert fingerprint(spec) == fourth


def test_a_file_counts_by_place_size_and_time(
    tar: Callable[..., Path], two_groups: dict[str, bytes], tmp_path: Path
) -> None:
    path = tar(two_groups)
    first = fingerprint(DataSpec(path=str(path)))
    os.utime(path, (5, 5))
    second = fingerprint(DataSpec(path=str(path)))
    shutil.copy2(path, tmp_path / "copy.tar")
    assert len({first, second, fingerprint(DataSpec(path=str(tmp_path / "copy.tar")))}) == 3


@pytest.mark.parametrize(
    "change",
    [{"size": 7}, {"channels": 1}, {"root": "a"}, {"group": ("x",)}, {"groups": ("x",)}, {"per_group": 3}],
)
def test_what_is_asked_for_counts(change: dict[str, object]) -> None:
    spec = DataSpec(source="digits")
    changed = dataclasses.replace(spec, **change)  # type: ignore[arg-type]
    assert fingerprint(spec) != fingerprint(changed)


def test_the_order_of_groups_does_not_count() -> None:
    one, two = (DataSpec(source="digits", groups=g) for g in (("a", "b"), ("b", "a")))
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize("ask", [fingerprint, read_dataset])
def test_a_missing_path_names_the_nearest(ask: Callable[[DataSpec], object], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError) as caught:
        ask(DataSpec(path=str(tmp_path / "picture")))
    assert "pictures" in caught.value.fix
    with pytest.raises(DataError, match=r"data\.path is not set") as caught:
        ask(DataSpec())
    assert "digits" in caught.value.fix
    with pytest.raises(DataError):
        ask(DataSpec(path=str(tmp_path / "no" / "way")))


@pytest.mark.parametrize(("source", "kind"), [("archive", "folder"), ("folder", "file")])
def test_source_and_path_must_fit(
    folder: Callable[..., Path],
    tar: Callable[..., Path],
    two_groups: dict[str, bytes],
    source: str,
    kind: str,
) -> None:
    path = folder(two_groups) if kind == "folder" else tar(two_groups, "x.tar")
    with pytest.raises(DataError, match=f"is a {kind}, not"):
        fingerprint(DataSpec(path=str(path), source=source))


def test_a_fingerprint_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from guda_cli.data.sources import fingerprint\n"
        "from guda_cli.sections import DataSpec\n"
        "fingerprint(DataSpec(source='digits'))\n"
        "heavy = 'numpy', 'PIL', 'sklearn', 'scipy', 'safetensors', 'torch'\n"
        "print([m for m in heavy if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_imports_no_torch() -> None:
    code = (
        "import sys, guda_cli.data.images, guda_cli.data.queries, guda_cli.data.similarity\n"
        "from guda_cli.data.dataset import to_bytes\n"
        "from guda_cli.data.sources import read_dataset\n"
        "from guda_cli.sections import DataSpec\n"
        "to_bytes(read_dataset(DataSpec(source='digits', size=8, channels=1, per_group=2)))\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
