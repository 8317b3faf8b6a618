"""Builders of small image sources; everything lies in tmp_path."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PngBytes = Callable[..., bytes]
Write = Callable[..., Path]


def _image(seed: int = 0, size: int = 8, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    shape = (size, size) if mode == "L" else (size, size, 3)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode)


@pytest.fixture
def png() -> PngBytes:
    """Bytes of a random image; `png(seed, size, mode, format)`."""

    def make(seed: int = 0, size: int = 8, mode: str = "RGB", format: str = "PNG") -> bytes:
        out = io.BytesIO()
        _image(seed, size, mode).save(out, format)
        return out.getvalue()

    return make


@pytest.fixture
def two_groups(png: PngBytes) -> dict[str, bytes]:
    """Three images in `cat`, two in `dog`."""
    return {
        "cat/0.png": png(0),
        "cat/1.png": png(1),
        "cat/2.png": png(2),
        "dog/0.png": png(3),
        "dog/1.png": png(4),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """Write files below `tmp_path / name` and return that folder."""

    def make(files: Mapping[str, bytes], name: str = "set") -> Path:
        for path, data in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return tmp_path / name

    return make


@pytest.fixture
def tar(tmp_path: Path) -> Write:
    """Write a tar of files, then of raw TarInfo members; gzipped when the name ends so."""

    def make(
        files: Mapping[str, bytes], name: str = "set.tar", extra: tuple[tarfile.TarInfo, ...] = ()
    ) -> Path:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, data in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            for info in extra:
                archive.addfile(info, io.BytesIO(bytes(info.size)))
        whole = out.getvalue()
        (tmp_path / name).write_bytes(gzip.compress(whole) if name.endswith("gz") else whole)
        return tmp_path / name

    return make


@pytest.fixture
def zip_(tmp_path: Path) -> Write:
    """Write a deflated zip of files."""

    def make(files: Mapping[str, bytes], name: str = "set.zip") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in files.items():
                archive.writestr(path, data)
        return tmp_path / name

    return make
