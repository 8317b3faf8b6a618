"""The cache of the Hugging Face hub on disk: `models--OWNER--NAME/` with `snapshots/` and `blobs/`."""

from __future__ import annotations

from pathlib import Path


def snapshot_in(folder: Path) -> Path:
    """The snapshot to read where `folder` is such a cache: that of `main`, or the only one; else `folder`."""
    snapshots = folder / "snapshots"
    if not (snapshots.is_dir() and (folder / "blobs").is_dir()):
        return folder
    try:
        named = snapshots / (folder / "refs" / "main").read_text(encoding="ascii").strip()
        if named.parent == snapshots and named.is_dir():
            return named
    except (OSError, ValueError):
        pass
    there = sorted(entry for entry in snapshots.iterdir() if entry.is_dir())
    return there[0] if len(there) == 1 else folder


def blobs_of(folder: Path) -> Path | None:
    """Where the links of a snapshot lead, for a resolved folder in one; None elsewhere.

    Not where `blobs` is a link itself: then anything might lie there.
    """
    for above in folder.parents:
        blobs = above.parent / "blobs"
        if above.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return blobs
    return None
