"""The metadata that speak of a query image: in its own folder or a few above it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from guda_cli.data.sources.metadata import METADATA_NAMES, Metadata, read_metadata
from guda_cli.data.sources.names import composed
from guda_cli.errors import DataError

LEVELS_ABOVE = 3
"""How far above an image its metadata may lie: train/metadata.jsonl names train/STYLE/OBJECT/1.jpg."""


class MetadataBeside:
    """Reads `metadata.jsonl` or `metadata.csv` in the folders of images and above, each once."""

    def __init__(self) -> None:
        self._read: dict[Path, Metadata | DataError] = {}

    def of(self, path: Path, instead: str) -> tuple[Metadata, str]:
        """The metadata that have a row of the image at `path`, and its name in them.

        The nearest of its own folder and LEVELS_ABOVE above it; where none has a row of it, its own folder's.
        DataError when those of its own folder cannot be used, which names `instead` as the option that
        does without them; unusable ones above may have nothing to do with it and are passed over.
        """
        here = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed
        own = self._own(path, here.parent, instead)
        if (name := _row_of(path.name, own)) is not None:
            return own, name
        for folder in here.parents[1 : 1 + LEVELS_ABOVE]:
            found = self._above(folder)
            if (name := _row_of(here.relative_to(folder).as_posix(), found)) is not None:
                return found, name
        return own, path.name

    def _own(self, path: Path, folder: Path, instead: str) -> Metadata:
        found = self._folder(folder)
        if isinstance(found, DataError):
            why = f"{found.message}: {found.why}" if found.why else found.message
            raise DataError(f"cannot use image {path}", why=f"{why} ({instead} passes it over)")
        return found

    def _above(self, folder: Path) -> Metadata:
        found = self._folder(folder)
        return Metadata() if isinstance(found, DataError) else found

    def _folder(self, folder: Path) -> Metadata | DataError:
        if folder not in self._read:
            try:
                self._read[folder] = read_metadata(_Folder(folder), "", strict=False)
            except DataError as err:
                self._read[folder] = err
        return self._read[folder]


def _row_of(name: str, metadata: Metadata) -> str | None:
    """What metadata call the file `name`; None where they do not. Their rows have no backslashes."""
    names = (composed(name), composed(name).replace("\\", "/"))
    return next((known for known in names if known in metadata.rows), None)


class _Folder:
    """The metadata files of one folder, not of those below it; see `sources.tree.Tree`."""

    max_pixels: int | None = None

    def __init__(self, folder: Path) -> None:
        self.where, self._folder = str(folder), folder
        self.notes: list[str] = []
        found = [name for name in METADATA_NAMES if (folder / name).is_file()]
        self.files = {name: (folder / name).stat().st_size for name in found}

    def order(self, names: Iterable[str]) -> list[str]:
        return sorted(names)

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as err:
            raise DataError(f"cannot read {self._folder / name}", why=err.strerror or str(err)) from None

    def close(self) -> None:
        pass
