"""A disk that remembers every write of a store, so that a power cut can be played after each of them.

What POSIX promises is kept and nothing else: a file's bytes are there once the file was synced, a folder's
entries once the folder was. Of the rest any part may have reached the disk. Renaming inside one folder is one
step; between two folders either may know of it alone.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Entry = tuple[str, "int | None"]
"""A name in a folder and the number of the file or folder it leads to; None: the name is gone."""


@dataclass
class _Folder:
    now: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    pending: list[list[Entry]] = field(default_factory=list)

    def change(self, *entries: Entry) -> None:
        self.pending.append(list(entries))
        _apply(self.now, entries)

    def sync(self) -> None:
        self.synced, self.pending = dict(self.now), []


@dataclass
class _File:
    now: bytes = b""
    synced: bytes = b""


def _apply(names: dict[str, int], entries: list[Entry] | tuple[Entry, ...]) -> None:
    for name, number in entries:
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


Tree = dict[str, "bytes | None"]
"""Files by their path below the top, with their bytes; folders with None."""


class Disk:
    """What was done to the folder `top`, and what of it a power cut leaves."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.nodes: dict[int, _Folder | _File] = {0: _Folder()}
        self.steps = 0
        self.trees: list[tuple[int, str, Tree]] = []  # after how many steps, what was lost, what is left
        self._seen: set[int] = set()

    # -- what is done ------------------------------------------------------------------------------

    def find(self, path: Path) -> int | None:
        """The number of the file or folder at `path`; None where there is none."""
        node = 0
        for name in path.relative_to(self.top).parts:
            folder = self.nodes.get(node)
            if not isinstance(folder, _Folder) or name not in folder.now:
                return None
            node = folder.now[name]
        return node

    def add(self, path: Path, node: _Folder | _File) -> int:
        """A new file or folder."""
        number = len(self.nodes)
        self.nodes[number] = node
        self.enter(path, number)
        return number

    def enter(self, path: Path, number: int | None, *more: tuple[Path, int | None]) -> None:
        """Change entries; those of one folder in one step."""
        entries: dict[Path, list[Entry]] = {}
        for each, to in ((path, number), *more):
            entries.setdefault(each.parent, []).append((each.name, to))
        for where, changed in entries.items():
            folder = self.nodes[self.find(where) or 0]
            assert isinstance(folder, _Folder)
            folder.change(*changed)

    def cut(self) -> None:
        """Note what a power cut at this moment may leave, as far as it was not noted yet."""
        self.steps += 1
        for seed in (None, 0, 1):
            self._note(
                "nothing" if seed is None else f"some ({seed})", self._left(seed, everything=seed is None)
            )
        self._note("all that was not synced", self._left(None, everything=False))

    def _note(self, lost: str, tree: Tree) -> None:
        digest = hash(tuple(sorted(tree.items())))
        if digest not in self._seen:
            self._seen.add(digest)
            self.trees.append((self.steps, lost, tree))

    def _left(self, seed: int | None, *, everything: bool) -> Tree:
        rng = random.Random(f"{seed} {self.steps}") if seed is not None else None
        out: Tree = {}

        def walk(number: int, where: str) -> None:
            node = self.nodes[number]
            if isinstance(node, _File):
                cuts = (node.now, node.synced, node.now[: len(node.now) // 2])
                out[where] = node.now if everything else rng.choice(cuts) if rng else node.synced
                if node.now == node.synced:
                    out[where] = node.synced
                return
            if where:
                out[where] = None
            names = dict(node.now if everything else node.synced)
            if rng:
                for change in node.pending:
                    if rng.random() < 0.5:
                        _apply(names, change)
            for name, inner in names.items():
                walk(inner, f"{where}/{name}" if where else name)

        walk(0, "")
        return out


def put_back(tree: Tree, top: Path) -> None:
    """Make the files and folders of `tree` below `top`, which is empty; an hour old, as after a reboot."""
    then = time.time() - 3600.0
    for name, data in sorted(tree.items()):
        path = top / name
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)
            os.utime(path, (then, then))  # else leases would be waited for: their holder is this very process


@contextmanager
def traced(top: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Follow what this process writes below `top`, by the calls of the operating system."""
    disk, opened = Disk(top), dict[int, int]()
    real = {
        name: getattr(os, name)
        for name in ("open", "write", "fsync", "close", "replace", "link", "unlink", "mkdir")
    }

    def inside(path: object) -> Path | None:
        found = Path(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else None
        return found if found is not None and found.is_relative_to(top) and found != top else None

    def opening(path, flags, *args, **more):
        place = inside(path)
        known = disk.find(place) if place else None
        fd = real["open"](path, flags, *args, **more)
        if place is not None:
            if known is None and flags & os.O_CREAT:
                known = disk.add(place, _File())
                disk.cut()
            assert known is not None, path
            assert not flags & os.O_TRUNC, "not traced"
            opened[fd] = known
        elif Path(os.fsdecode(path)) == top:
            opened[fd] = 0
        return fd

    def writing(fd, data):
        done = real["write"](fd, data)
        if fd in opened:
            node = disk.nodes[opened[fd]]
            assert isinstance(node, _File)
            node.now += bytes(data[:done])
            disk.cut()
        return done

    def syncing(fd):
        if fd in opened:
            node = disk.nodes[opened[fd]]
            if isinstance(node, _Folder):
                node.sync()
            else:
                node.synced = node.now
            disk.cut()

    def closing(fd):
        opened.pop(fd, None)
        real["close"](fd)

    def replacing(source, target, **more):
        real["replace"](source, target, **more)
        old, new = inside(source), inside(target)
        if old and new:
            disk.enter(new, disk.find(old), (old, None))
            disk.cut()

    def linking(source, target, **more):
        real["link"](source, target, **more)
        old, new = inside(source), inside(target)
        if old and new:
            disk.enter(new, disk.find(old))
            disk.cut()

    def unlinking(path, *args, **more):
        real["unlink"](path, *args, **more)
        if (place := inside(path)) is not None:
            disk.enter(place, None)
            disk.cut()

    def making(path, *args, **more):
        real["mkdir"](path, *args, **more)
        if (place := inside(path)) is not None:
            disk.add(place, _Folder())
            disk.cut()

    with monkeypatch.context() as patch:
        new = (opening, writing, syncing, closing, replacing, linking, unlinking, making)
        for name, function in zip(real, new, strict=True):
            patch.setattr(os, name, function)
        patch.setattr(os, "rename", replacing)
        yield disk
