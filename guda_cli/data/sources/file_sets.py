"""Data sets in many files of one kind: `train-{000..003}.tar`, or all that lie in a folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from guda_cli.data.sources.hub_cache import blobs_of
from guda_cli.data.sources.names import hidden, hostile
from guda_cli.data.versions import IMAGE_SUFFIXES
from guda_cli.errors import DataError
from guda_cli.phrases import few, plural

MOST = 100_000
"""Files that braces may stand for."""

PARTS = {"train", "test", "val", "valid", "validation", "dev", "eval"}
"""What parts of a data set are called."""

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUMBER = re.compile(r"[-_.]?(\d+)(?:-of-(\d+))?$")


def has_braces(path: Path) -> bool:
    """Whether a path stands for several: `train-{000..003}.tar`."""
    return _BRACES.search(str(path)) is not None and not path.exists()


def expanded(path: Path) -> list[Path]:
    """The files that the braces of a path stand for; DataError naming those that are not there."""
    parts = _BRACES.split(str(path))
    ranges = [_numbers(*parts[i : i + 2]) for i in range(1, len(parts), 3)]
    count = 1
    for found in ranges:
        count *= len(found)
    if not 0 < count <= MOST:
        raise DataError(f"{path} stands for {count:,} files", why=f"1 to {MOST:,} can be read")
    files = [
        Path("".join(itertools.chain(*itertools.zip_longest(parts[::3], numbers, fillvalue=""))))
        for numbers in itertools.product(*ranges)
    ]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise DataError(
            f"{plural(len(absent), 'file', 'files')} of {path} not there: {few(absent, 3)}",
            why="data.path names them by a range",
            fix="correct the range in data.path, or fetch them",
        )
    return files


def archives(path: Path) -> list[Path]:
    """The archives that `path` stands for: itself, a range in braces, or all tars that lie in a folder."""
    if has_braces(path):
        return expanded(path)
    return lying_in(path, ".tar") if path.is_dir() else [path]


def parquet_files(path: Path) -> list[Path]:
    """The parquet files that `path` stands for: itself, a range, or all in a folder or its `data`."""
    if has_braces(path):
        return expanded(path) if path.suffix == ".parquet" else []
    if path.is_dir():
        found = lying_in(path, ".parquet")
        return found or (lying_in(path / "data", ".parquet") if (path / "data").is_dir() else [])
    return [path] if path.suffix == ".parquet" and path.is_file() else []


def left_out(path: Path, files: Sequence[Path]) -> list[str]:
    """A note where a folder has more of them, which `lying_in` left out; none where `path` names files."""
    if not path.is_dir():
        return []
    beside = {entry.name for entry in files[0].parent.iterdir() if entry.suffix == files[0].suffix}
    other = sorted(beside - {file.name for file in files} - {name for name in beside if hidden(name)})
    return [f"not for training, and so not read: {few(other, 3)}"] if other else []


def lying_in(folder: Path, suffix: str) -> list[Path]:
    """The files of `folder` that end in `suffix`, where it holds data in no other form; sorted.

    Of train, test and validation the first. DataError where they are of other sets, or of one that is not
    all there.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not hidden(entry.name)]
    except OSError:
        return []  # who reads it says why
    found = []
    for entry in entries:
        if entry.name.lower().endswith(suffix):
            found.append(entry)
        elif entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES:
            return []
    for entry in found:
        _check_link(folder, entry)
    return _one_set(folder, sorted(found), suffix)


def _check_link(folder: Path, entry: Path) -> None:
    """DataError for a link that leads out of the folder; a hub's snapshot has links to its blobs."""
    real, base = entry.resolve(), folder.resolve()
    blobs = blobs_of(base)
    if not (real.is_relative_to(base) or (blobs and real.is_relative_to(blobs))):
        raise hostile(str(folder), entry.name, f"it is a link that leads outside the folder, to {real}")
    if not real.is_file():
        raise hostile(str(folder), entry.name, "it is a link that leads nowhere, or no file")


def _one_set(folder: Path, files: Sequence[Path], suffix: str) -> list[Path]:
    sets: dict[str, list[tuple[Path, re.Match[str] | None]]] = {}
    for file in files:
        stem = file.name[: -len(suffix)]
        match = _NUMBER.search(stem)
        sets.setdefault(stem[: match.start()] if match else stem, []).append((file, match))
    if len(sets) > 1 and "train" in sets and set(sets) <= PARTS:
        sets = {"train": sets["train"]}
    if len(sets) > 1:
        raise DataError(
            f"{folder} holds several sets of {suffix} files: {few(sorted(sets), 4)}",
            why="which of them to train on is for you to say",
            fix=f"name one, as in data.path: {folder / files[-1].name}, "
            f"or a range: NAME-{{000..003}}{suffix}",
        )
    for name, matches in sets.items():
        totals = {int(match[2]) for _, match in matches if match and match[2]}
        if totals and totals != {len(matches)}:
            raise DataError(
                f"{folder} holds {plural(len(matches), 'file', 'files')} of {name}, of {max(totals)}",
                why="their names say how many there are",
                fix="fetch the others, or name those there are by a range in data.path",
            )
    return [file for matches in sets.values() for file, _ in matches]


def _numbers(first: str, last: str) -> list[str]:
    """`000`, `003` -> 000, 001, 002, 003: as many digits as the first has."""
    start, stop = int(first), int(last)
    return [f"{n:0{len(first)}d}" for n in range(start, min(stop, start + MOST) + 1)]
