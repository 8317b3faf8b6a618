"""Query images: from command-line arguments to preprocessed pixels."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from guda_cli.data.dataset import Pixels
from guda_cli.data.images import decode, is_image, pixels_digest
from guda_cli.data.origins import Origin, read_origin
from guda_cli.data.sources.left_out import LeftOut, told, unread, within_litter
from guda_cli.data.sources.names import conflict_copies, hidden, on_disk, placeholder_of
from guda_cli.errors import DataError, UsageError, nearest
from guda_cli.outfile import MAP, is_ours
from guda_cli.plain_text import spelled, unspelled


class ConditionSource(Protocol):
    """What says the condition of a query image: `conditions.Conditions` or `prompts.Prompts`."""

    prompts: bool
    """Whether conditions are prompts, of which an image may have several, and not classes."""

    def of(self, path: str) -> str | None:
        """The condition of the image at `path`, None for the null condition; DataError when unusable."""

    def all_of(self, path: str) -> tuple[str, ...]:
        """Its prompts, ("",) for the empty one; of classes nothing."""

    def note_of(self, path: str) -> str:
        """What a user should know of how its condition was read; "" for nothing."""


@dataclass(frozen=True, eq=False)
class Query:
    """One image to attribute, with its class or prompt; a copy elsewhere has the same digests."""

    name: str
    """The path as given."""
    pixels: Pixels
    """uint8 [C, H, W]."""
    pixels_digest: str
    """`pixels_digest(pixels)`: what its noise is drawn from, the same whatever the condition."""
    condition: str | None = None
    """Its class; None for the null class and for models without classes."""
    prompts: tuple[str, ...] = ()
    """Its prompts, over which scores are averaged; empty for models that read none."""
    origin: Origin | None = None
    """What it was drawn from, where `guda sample` drew it; no part of the digest."""

    @property
    def spelled(self) -> str:
        """Its name as reports and documents have it: `plain_text.spelled`."""
        return spelled(self.name)

    @property
    def conditions(self) -> tuple[str | None, ...]:
        """What the network is told, one forward each: its prompts, or its class."""
        return self.prompts or (self.condition,)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of pixels and condition, the key of its scores; `pixels_digest` without condition."""
        if self.condition is None and not any(self.prompts):
            return self.pixels_digest
        told = self.condition if self.condition is not None else json.dumps(self.prompts)
        text = f"guda.query/1\0{self.pixels_digest}\0{told}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def expand(
    arguments: Sequence[str], stdin: TextIO | None, say: Callable[[str], None] | None = None
) -> list[str]:
    """The image paths meant by `arguments`, in order, each path once.

    An argument is an image; a folder (every image below it, sorted); a glob (`**` crosses folders);
    or `-`, paths from `stdin`, one a line or separated by NUL. An argument that is missing or holds no
    image stands for itself, and `load_query` says what is wrong with it; DataError where all are so.
    `say` hears a sentence about each kind of file that was left out.
    """
    left = LeftOut()
    seen: set[str] = set()
    paths: list[str] = []
    errors: list[DataError] = []
    for argument, typed in _each(arguments, stdin):
        if typed and not argument:
            raise UsageError("an image's path is empty", fix="guda score IMAGE")
        try:
            found = _images_of(argument, left) if typed else _path(argument, left)
        except DataError as err:
            errors.append(err)
            found = [argument]
        for path in found:
            key = os.path.abspath(path)  # noqa: PTH100 - normalises without following links
            if key not in seen:
                seen.add(key)
                paths.append(path)
    if errors and len(errors) >= len(paths):
        raise errors[0]
    paths = left.litter_of(paths)
    if say is not None:
        for sentence in left.sentences():
            say(sentence)
    if not paths:
        raise UsageError(
            "no image was given",
            why="name an image, a folder, a glob, or - for standard input",
            fix="guda score IMAGE",
        )
    return paths


def load_query(path: str, size: int, channels: int, conditions: ConditionSource | None = None) -> Query:
    """Read one query image as uint8 [channels, size, size]; DataError when it cannot be used.

    `conditions` says its class or prompt; without them it has none.
    """
    if not Path(path).is_file():
        _images_of(path, LeftOut())  # says what is wrong with it
    pixels = decode(Path(path), size, channels, path)
    digest, origin = pixels_digest(pixels), read_origin(Path(path))
    if conditions is None:
        return Query(path, pixels, digest, origin=origin)
    if conditions.prompts:
        return Query(path, pixels, digest, prompts=conditions.all_of(path), origin=origin)
    return Query(path, pixels, digest, conditions.of(path), origin=origin)


def load_queries(
    paths: Iterable[str], size: int, channels: int, conditions: ConditionSource | None = None
) -> tuple[list[Query], list[tuple[str, str]]]:
    """Every readable query, and `(path, reason)` of those that are not; never stops at a bad file."""
    good: list[Query] = []
    bad: list[tuple[str, str]] = []
    for path in paths:
        try:
            good.append(load_query(path, size, channels, conditions))
        except DataError as err:
            bad.append((path, err.why or "; ".join(filter(None, (err.message, err.fix)))))
    return good, bad


def _each(arguments: Sequence[str], stdin: TextIO | None) -> Iterator[tuple[str, bool]]:
    """The arguments, and in place of `-` the lines of `stdin`; whether each was typed, and may be a glob."""
    for argument in arguments:
        if argument == "-":
            yield from ((line, False) for line in _lines(stdin))
        else:
            yield argument, True


def _images_of(argument: str, left: LeftOut) -> list[str]:
    if not os.path.lexists(argument) and glob.has_magic(argument):
        return _glob(argument, left)
    return _path(argument, left)


def _lines(stdin: TextIO | None) -> list[str]:
    if stdin is None:
        raise DataError("- asks for paths on standard input, and there is none")
    text = stdin.read()
    lines = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise DataError(
            "standard input (-) held no path", fix="write one path a line, or separate them by NUL"
        )
    return lines


def _glob(pattern: str, left: LeftOut) -> list[str]:
    found: list[str] = []
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - keeps the user's spelling
        if within_litter(path, pattern):
            continue
        if Path(path).is_dir():
            found += _folder(path, left)
        elif is_image(path):
            found.append(path)
        else:
            left.foreign += unread([path])
    if not found:
        raise DataError(f"no image matches {pattern}", fix="check the pattern; ** crosses folders")
    return found


def _path(path: str, left: LeftOut) -> list[str]:
    here = on_disk(Path(path))
    path = path if here == Path(path) else str(here)
    try:
        if here.is_dir():
            before = len(left.foreign)
            found = _folder(path, left)
            if not found:
                raise DataError(f"the folder {path} holds no image", why=told(left.foreign[before:]))
            return found
        if here.exists():
            return [path]
        if (name := unspelled(path)) != path and Path(name).exists():  # out of a document of ours
            return [name]
    except (OSError, ValueError) as err:
        raise DataError(f"cannot look at {path[:200]!r}", why=str(err)) from None
    raise _missing(here)


def _folder(path: str, left: LeftOut) -> list[str]:
    found: list[str] = []
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = [name for name in subfolders if not hidden(name)]
        left.absent += [os.path.join(folder, f) for f in files if placeholder_of(f)]  # noqa: PTH118
        here = [os.path.join(folder, f) for f in files if not hidden(f)]  # noqa: PTH118
        images = [path for path in here if is_image(path)]
        copies = conflict_copies(images)
        left.copies += copies
        left.foreign += unread(here)
        images = [path for path in images if path not in copies]
        found += [path for path in images if not (path.endswith(MAP) and is_ours(Path(path)))]
    return sorted(found)


def _missing(path: Path) -> DataError:
    try:
        guess = nearest(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        return DataError(f"there is no file {path}", why=f"the folder {path.parent} cannot be read")
    fix = f"did you mean {path.parent / guess}?" if guess else "check the path"
    return DataError(f"there is no file {path}", fix=fix)
