"""What is not taken along with the images of a folder, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from guda_cli.data.sources.names import litter
from guda_cli.data.versions import IMAGE_SUFFIXES
from guda_cli.phrases import few, plural

_PHOTOS = "heic heif hif jxl jp2 j2k jpf jpx j2c jxr wdp jfi jif apng mpo"
_RAW = "raw dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw 3fr iiq x3f rwl"
_DRAWN = "svg svgz psd psb ai eps xcf kra clip ora afphoto procreate sai"
_OTHERS = "exr hdr tga ico icns cur pcx dds qoi pnm pam pfm bpg flif fits dcm avifs"
UNREAD_SUFFIXES = (
    frozenset("." + ending for part in (_PHOTOS, _RAW, _DRAWN, _OTHERS) for ending in part.split())
    - IMAGE_SUFFIXES
)
"""Lower-case endings of files that hold pictures which are not read."""


def unread(names: Iterable[str]) -> list[str]:
    """Those of the file names that end like a picture of a format that is not read, sorted."""
    return sorted(name for name in names if _ending(name) in UNREAD_SUFFIXES)


def told(names: list[str]) -> str:
    """A sentence on such files, which are named and counted by format; "" for none."""
    if not names:
        return ""
    counts = Counter(_ending(name)[1:].upper() for name in names)
    formats = ", ".join(f"{count} {ending}" for ending, count in counts.most_common(4))
    what = plural(len(names), "picture is of a format that is", "pictures are of formats that are")
    return f"{what} not read ({formats}: {few(names, 2)}); save them as PNG or JPEG"


def _ending(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


@dataclass
class LeftOut:
    """What was not taken along with the images, to be told."""

    foreign: list[str] = field(default_factory=list)
    """Pictures of formats that are not read."""
    copies: list[str] = field(default_factory=list)
    """Copies that syncing tools made of images which are there."""
    absent: list[str] = field(default_factory=list)
    """Images that lie in iCloud alone, with a placeholder here."""
    passed: list[str] = field(default_factory=list)
    """Named paths in folders that systems leave behind, among others that are not."""

    def litter_of(self, paths: list[str]) -> list[str]:
        """`paths` without those in folders that systems leave behind, unless all of them are."""
        passed = [path for path in paths if within_litter(path)]
        if not passed or len(passed) == len(paths):
            return paths
        self.passed += passed
        return [path for path in paths if not within_litter(path)]

    def sentences(self) -> list[str]:
        """One for each kind of which there are some."""
        kinds = (
            (self.copies, "conflict copies of a syncing tool, for the images themselves are there"),
            (self.absent, "images that lie in iCloud alone"),
            (self.passed, "files in folders that systems leave behind"),
        )
        foreign = sorted(set(self.foreign))
        said = [f"left out: {what} ({len(names)}: {few(names, 2)})" for names, what in kinds if names]
        return [told(foreign), *said] if foreign else said


def within_litter(path: str, pattern: str = "") -> bool:
    """Whether `path` is, or lies in, what systems leave behind, and `pattern` does not name it itself."""
    named = Path(pattern).parts
    return any(litter(part) and part not in named for part in Path(path).parts)
