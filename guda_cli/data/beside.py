"""The metadata files in a query image's own folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from guda_cli.data.sources.metadata import METADATA_NAMES, Metadata, read_metadata
from guda_cli.errors import DataError


class MetadataBeside:
    """Reads `metadata.jsonl` or `metadata.csv` in the folders of images, each once."""

    def __init__(self) -> None:
        self._read: dict[Path, Metadata] = {}

    def of(self, path: Path, instead: str) -> Metadata:
        """The metadata in the folder of the image at `path`, keyed by file name; empty when there are none.

        DataError when they cannot be used, which names `instead` as the option that does without them.
        """
        folder = path.parent
        if folder not in self._read:
            try:
                self._read[folder] = read_metadata(_Folder(folder), "", strict=False)
            except DataError as err:
                why = f"{err.message}: {err.why}" if err.why else err.message
                raise DataError(f"cannot use image {path}", why=f"{why} ({instead} passes it over)") from None
        return self._read[folder]


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
