"""What lies at `DataSpec.path`, found by names only: no image library is imported here.

A format that is not image files in a folder or an archive is a row of FORMATS and a module that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guda_cli.data.sources.file_sets import expanded, has_braces, lying_in, parquet_files
from guda_cli.data.sources.hub_cache import snapshot_in
from guda_cli.data.sources.names import clean_root, on_disk
from guda_cli.errors import DataError, nearest, unknown
from guda_cli.sections import DataSpec

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True)
class IdxFiles:
    """The files of one IDX data set."""

    images: Path
    labels: Path
    classes: Path | None


@dataclass(frozen=True)
class Format:
    """A kind of source with files of its own."""

    name: str
    """The recipe's `data.source`; `auto` finds it too."""
    reader: str
    """`module:function`, called with the path, the spec and a progress callback; gives a `Dataset`."""
    files: Callable[[Path], Sequence[Path]]
    """Those whose sizes and times tell that the source has changed; none where it is not there."""


class MissingSourceError(DataError):
    """There is nothing at `data.path`, or it is not set; `guess` is what there is of nearly that name."""

    def __init__(self, message: str, *, why: str = "", fix: str = "", guess: str | None = None) -> None:
        super().__init__(message, why=why, fix=fix)
        self.guess = guess


def locate(spec: DataSpec) -> tuple[str, Path | None]:
    """The kind of source ("digits", "folder", "archive" or a row of FORMATS) and its path, None for digits.

    A folder or archive may yet turn out to hold CIFAR's binary files. DataError for a path that is
    missing (MissingSourceError) or of no accepted kind.
    """
    if spec.source not in SOURCES:
        raise DataError(unknown("data.source", spec.source, SOURCES))
    if spec.source == "digits":
        return "digits", None
    if not spec.path:
        raise MissingSourceError(
            f"data.path is not set, and the source {spec.source} needs one",
            fix="set data.path to a folder or archive of images, or data.source: digits for built-in data",
        )
    path = snapshot_in(on_disk(Path(spec.path).expanduser()))
    top = on_disk(path / clean_root(spec.root)) if path.is_dir() else path
    for own in FORMATS:
        if spec.source in ("auto", own.name) and own.files(top):
            return own.name, top
    if has_braces(path):
        expanded(path)
        return "archive", path
    if not path.exists():
        raise _missing(path)
    if format_of(spec.source):
        return spec.source, top
    if path.is_dir():
        if spec.source != "folder" and lying_in(path, ".tar"):
            return "archive", path
        if spec.source == "archive":
            raise DataError(f"{path} is a folder, not an archive", fix="set data.source: folder")
        return "folder", path
    if spec.source == "folder":
        raise DataError(f"{path} is a file, not a folder", fix="set data.source: auto")
    if spec.source == "auto" and not path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise DataError(
            f"{path} is nothing images are read from",
            why="accepted are folders, " + ", ".join(ARCHIVE_SUFFIXES) + ", and IDX or CIFAR binary files",
        )
    return "archive", path


def idx_files(path: Path) -> IdxFiles | None:
    """The IDX files in the folder `path` (training part), or with the prefix `path`; None when absent."""
    folder, prefix = (path, "train") if path.is_dir() else (path.parent, path.name)
    if not path.is_dir() and "-images" in prefix:  # the images file itself
        prefix = prefix.partition("-images")[0]
    images = _first(folder, prefix, "images", 3)
    labels = _first(folder, prefix, "labels", 1)
    if images is None or labels is None:
        return None
    classes = folder / "classes.txt"
    return IdxFiles(images, labels, classes if classes.is_file() else None)


def _idx(path: Path) -> list[Path]:
    files = idx_files(path)
    return [file for file in (files.images, files.labels, files.classes) if file] if files else []


FORMATS = (
    Format("idx", "guda_cli.data.sources.idx:read_idx", _idx),
    Format("parquet", "guda_cli.data.sources.parquet:read_parquet", parquet_files),
)
SOURCES = ("auto", "digits", "folder", "archive", *(own.name for own in FORMATS), "cifar-binary")


def format_of(kind: str) -> Format | None:
    """The row of that name; None for digits and for image files."""
    return next((own for own in FORMATS if own.name == kind), None)


def _first(folder: Path, prefix: str, what: str, dimensions: int) -> Path | None:
    for mark in ("-", "."):  # some mirrors write train-images.idx3-ubyte
        for suffix in ("", ".gz"):
            path = folder / f"{prefix}-{what}{mark}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def _missing(path: Path) -> MissingSourceError:
    try:
        guess = nearest(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        guess = None
    fix = (
        f"did you mean {path.parent / guess}?" if guess else "correct data.path, or pass --set data.path=..."
    )
    return MissingSourceError(f"there is nothing at {path}", why="data.path names it", fix=fix, guess=guess)
