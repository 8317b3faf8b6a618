"""Brings a known data set: from the mirror that has it, checked, beside what a user has there."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guda_cli import download
from guda_cli.console import Console
from guda_cli.data.known_sets import KnownSet, emoji_table
from guda_cli.errors import DataError
from guda_cli.outfile import write
from guda_cli.wanted_file import Wanted

MEGABYTE = 1 << 20
PACKAGES = "emoji-packages"


@dataclass(frozen=True)
class Brought:
    """What `data.path` is to name, every file, and a line for each part that has a licence of its own."""

    path: Path
    files: tuple[Path, ...]
    licences: tuple[str, ...] = ()


def get(
    known: KnownSet, folder: Path, source: str | None, console: Console, *, force: bool = False
) -> Brought:
    """The data set below `folder`, from `source` (a file, folder or address) or else its mirrors.

    DataError where it cannot be had, where what comes is something else, and, unless `force`, where
    another file has a name that is needed.
    """
    if known.build:
        return _built(known, folder, source, console, force=force)
    into = folder / known.into
    files = _all(known, into, source, console, force=force)
    if known.name == "fashion-mnist":  # elsewhere the names of the classes come from the folder's
        from guda_cli.data.sources.idx import FASHION

        write(into / "classes.txt", "\n".join(FASHION) + "\n", fix="--to DIR", force=force)
    return Brought(into / known.path, files)


def _all(
    known: KnownSet, into: Path, source: str | None, console: Console, *, force: bool
) -> tuple[Path, ...]:
    for wanted in known.files:
        check_room(into / wanted.name, wanted, force=force)
    return tuple(_one(known, wanted, into, source, console) for wanted in known.files)


def check_room(path: Path, wanted: Wanted, *, force: bool) -> None:
    """DataError where something else than `wanted` stands at `path`; an empty file holds nothing to lose."""
    if not path.exists() or (path.is_file() and (force or not path.stat().st_size)):
        return
    if not download.fits(path, wanted):
        raise DataError(
            f"{path} is there already",
            why=f"it is not {wanted.name} as published" + ("; --force replaces it" if path.is_file() else ""),
            fix="--to DIR",
        )


def _one(known: KnownSet, wanted: Wanted, into: Path, source: str | None, console: Console) -> Path:
    """From the first mirror that has it."""
    places = [download.place_of(wanted, s, alone=len(known.files) == 1) for s in _sources(known, source)]
    for place in places:
        try:
            with console.progress(wanted.name, max(1, wanted.size // MEGABYTE), unit="MB") as bar:
                return download.bring(
                    wanted, place, into, lambda there: bar.advance(there // MEGABYTE - bar.done)
                )
        except DataError as err:
            if place == places[-1]:
                err.fix = err.fix or f"guda data get {known.name} --from DIR"
                raise
            console.warn(f"{err.message}: {err.why}; trying the next mirror")
    raise DataError(f"{known.name} has no mirror")


def _sources(known: KnownSet, source: str | None) -> Sequence[str]:
    if source:
        return (source,)
    return [s for s in known.mirrors if download.is_address(s) or Path(s).is_dir()]


def _built(known: KnownSet, folder: Path, source: str | None, console: Console, *, force: bool) -> Brought:
    from guda_cli.data import emoji_styles

    out = folder / known.path
    if out.exists() and not (force and out.is_file()) and not _is_emoji_archive(out):
        raise DataError(f"{out} is there already", why="it is no archive of emoji-styles", fix="--to DIR")
    if out.exists() and not force:
        return Brought(out, (out,))
    emoji_styles.check_renderer()  # before any work
    packages = folder / PACKAGES
    _all(known, packages, source, console, force=force)
    with console.progress("drawing", 0, unit="picture") as bar:

        def tell(done: int, total: int | None) -> None:
            bar.total = total or 0
            bar.advance(done - bar.done)

        licences = emoji_styles.make(out, packages, tell)
    return Brought(out, (out,), tuple(licences))


def _is_emoji_archive(path: Path) -> bool:
    """Whether a tar begins with the styles that we know."""
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
            file = archive.extractfile(first) if first is not None and first.size < MEGABYTE else None
            return file is not None and set(json.loads(file.read())) == set(emoji_table()["styles"])
    except (OSError, tarfile.TarError, ValueError, TypeError):
        return False
