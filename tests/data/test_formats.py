"""A format of its own is a module that reads it and one row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guda_cli.data.dataset import Dataset
from guda_cli.data.sources import detect, fingerprint, packed, read_dataset
from guda_cli.data.sources.detect import Format
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def read_arrays(path: Path, spec: DataSpec, progress: object = None) -> Dataset:
    """Images and labels of a `.npz` file."""
    with np.load(path) as found:
        return packed.from_arrays(found["images"][:, None], found["labels"], ["even", "odd"], spec)


def files(path: Path) -> list[Path]:
    return [path] if path.suffix == ".npz" and path.is_file() else []


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    row = Format("arrays", f"{__name__}:read_arrays", files)
    monkeypatch.setattr(detect, "FORMATS", (*detect.FORMATS, row))
    monkeypatch.setattr(detect, "SOURCES", (*detect.SOURCES, "arrays"))
    path = tmp_path / "six.npz"
    images = np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8)
    np.savez(path, images=images, labels=np.array([0, 1, 0, 1, 0, 1]))
    return path


@pytest.mark.parametrize("source", ["auto", "arrays"])
def test_a_row_is_found_and_read(arrays: Path, source: str) -> None:
    spec = DataSpec(source=source, path=str(arrays), size=8, channels=1)
    assert detect.locate(spec) == ("arrays", arrays)
    found = read_dataset(spec)
    assert found.counts() == {"even": 3, "odd": 3}
    before = fingerprint(spec)
    assert fingerprint(spec) == before
    np.savez(arrays, images=np.zeros((2, 8, 8), dtype=np.uint8), labels=np.array([0, 1]))
    assert fingerprint(spec) != before


def test_one_that_is_not_there_is_named(arrays: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean .*six\.npz|there is nothing at"):
        detect.locate(DataSpec(source="arrays", path=str(tmp_path / "sox.npz")))


def test_every_row_names_a_reader() -> None:
    for row in detect.FORMATS:
        module, _, name = row.reader.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))
        assert row.name in detect.SOURCES
