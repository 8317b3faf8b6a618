"""Data sets in many files of one kind: `train-{000..003}.tar`, or all that lie in a folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from guda_cli.data.sources.names import hidden
from guda_cli.data.versions import IMAGE_SUFFIXES
from guda_cli.errors import DataError
from guda_cli.phrases import few, plural

MOST = 100_000
"""Files that braces may stand for."""

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


def lying_in(folder: Path, suffix: str) -> list[Path]:
    """The files of `folder` that end in `suffix`, where it holds data in no other form; sorted.

    DataError where they are of several sets, such as train and test, or of one that is not all there.
    """
    found = []
    for entry in folder.iterdir():
        if hidden(entry.name):
            continue
        if entry.name.lower().endswith(suffix):
            found.append(entry)
        elif entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES:
            return []
    found.sort()
    _check_one_set(folder, found, suffix)
    return found


def _check_one_set(folder: Path, files: Sequence[Path], suffix: str) -> None:
    sets: dict[str, list[re.Match[str] | None]] = {}
    for file in files:
        stem = file.name[: -len(suffix)]
        match = _NUMBER.search(stem)
        sets.setdefault(stem[: match.start()] if match else stem, []).append(match)
    if len(sets) > 1:
        raise DataError(
            f"{folder} holds several sets of {suffix} files: {few(sorted(sets), 4)}",
            why="which of them to train on is for you to say",
            fix=f"name one, as in data.path: {folder / files[-1].name}, "
            f"or a range: NAME-{{000..003}}{suffix}",
        )
    for name, matches in sets.items():
        totals = {int(match[2]) for match in matches if match and match[2]}
        if totals and totals != {len(matches)}:
            raise DataError(
                f"{folder} holds {plural(len(matches), 'file', 'files')} of {name}, of {max(totals)}",
                why="their names say how many there are",
                fix="fetch the others, or name those there are by a range in data.path",
            )


def _numbers(first: str, last: str) -> list[str]:
    """`000`, `003` -> 000, 001, 002, 003: as many digits as the first has."""
    start, stop = int(first), int(last)
    return [f"{n:0{len(first)}d}" for n in range(start, min(stop, start + MOST) + 1)]
