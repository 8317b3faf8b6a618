"""File names inside folders and archives: what is refused, what is passed over, and in what form they are.

Names are compared and written down in Unicode's composed form (NFC), whatever a system has made of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from guda_cli.data.versions import IMAGE_SUFFIXES
from guda_cli.errors import DataError

_DRIVE = re.compile(r"[A-Za-z]:")
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")

# What begins with a dot is passed over as well (.DS_Store, ._0.png, .Trash-1000, .@__thumb).
_MACOS = ("__macosx", "icon\r", "desktop db", "desktop df", "thevolumesettingsfolder", "temporary items")
_WINDOWS = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "found.000")
_DISKS = ("@eadir", "@tmp", "@synoresource", "#recycle", "#snapshot", "@recycle", "@recently-snapshot")
_OTHERS = ("system volume information", "network trash folder", "lost+found", "~snapshot", "_gsdata_")
_LITTER = frozenset((*_MACOS, *_WINDOWS, *_DISKS, *_OTHERS))
_EXACTLY = frozenset({"RECYCLER"})  # Windows XP's; in other letters it may well be somebody's folder
_AFTER_A_COLON = ":2e"  # a leading dot as netatalk wrote it
_PLACEHOLDER = re.compile(r"\.(.+)\.icloud")

# A copy that a tool for keeping folders in step made where two machines had changed a file.
_CONFLICTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(.+?) \([^()]*conflicted copy[^()]*\)(\.\w+)",  # Dropbox, Nextcloud
        r"(.+?)\.sync-conflict-\d{8}-\d{6}-\w+(\.\w+)",  # Syncthing
        r"(.+?)_conflict-\d{8}-\d{6}(\.\w+)",  # ownCloud
        r"(.+?) \(SFConflict [^()]+\)(\.\w+)",  # Seafile
        r"(.+?)_[^_/]+_\w{3}-\d{2}-\d{6}-\d{4}_(?:Case)?Conflict(\.\w+)",  # Synology Drive
        r"(.+?) \[conflicted\](\.\w+)",  # pCloud
    )
)


def safe_name(raw: str, where: str) -> str:
    """The member name `raw` of the archive `where` with `/` between its parts and no empty ones.

    DataError for a name that leads out of the archive (absolute, drive letter, `..`).
    """
    name = raw.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or _DRIVE.match(name):
        raise hostile(where, raw, "its name is an absolute path")
    if ".." in parts:
        raise hostile(where, raw, "its name leads out of the archive (..)")
    if "\0" in name:
        raise hostile(where, raw, "its name holds a NUL character")
    check_text(name, where)
    return "/".join(parts)


def check_text(name: str, where: str) -> None:
    """DataError unless `name` is valid Unicode (a byte that is no UTF-8 arrives as a surrogate)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: the file name {name!a} is not valid UTF-8", fix="rename the file, or pack it anew"
        ) from None


def composed(text: str) -> str:
    """`text` in NFC: an accent and its letter are one character. macOS writes names with two."""
    return unicodedata.normalize("NFC", text)


def in_one_form(names: Iterable[str], where: str) -> dict[str, str]:
    """Composed name -> name as it is, of relative paths with `/`; DataError naming two that become one.

    Folders count as files do: of two that differ in form alone one group would be made.
    """
    names = list(names)
    if all(unicodedata.is_normalized("NFC", name) for name in names):
        return {name: name for name in names}
    spelled: dict[str, str] = {}
    for name in names:
        for path in _paths_to(name):
            other = spelled.setdefault(composed(path), path)
            if other != path:
                raise DataError(
                    f"{where}: {other!a} and {path!a} are one name in two Unicode forms",
                    why="file names are composed (NFC), and which of the two is meant would be chance",
                    fix="rename one of them, or put their files into one folder",
                )
    return {composed(name): name for name in names}


def _paths_to(name: str) -> Iterator[str]:
    """The folders of a relative path, and itself."""
    end = name.find("/")
    while end > 0:
        yield name[:end]
        end = name.find("/", end + 1)
    yield name


def on_disk(path: Path) -> Path:
    """`path`, or where nothing is there what has its name in another Unicode form."""
    if not str(path).isascii() and not _exists(path):
        others = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
        return next(filter(_exists, others), path)
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL character
        return False


def windows_path(name: str) -> bool:
    r"""Whether `name` is absolute on Windows: `C:\x.png`, `c:/x.png`, `\\server\x.png`."""
    return _WINDOWS_PATH.match(name) is not None


def litter(part: str) -> bool:
    """Whether a file or folder of this name is something systems leave behind (Thumbs.db, @eaDir)."""
    return part.lower() in _LITTER or part in _EXACTLY or part.startswith(_AFTER_A_COLON)


def hidden(name: str) -> bool:
    """Whether a relative path is, or lies in, what is passed over: names with a dot before, and litter."""
    return any(part.startswith(".") or litter(part) for part in name.split("/"))


def placeholder_of(base: str) -> str | None:
    """The image for which a file of this name stands, in iCloud (`.a.png.icloud`); None for others."""
    found = _PLACEHOLDER.fullmatch(base)
    return found[1] if found and Path(found[1]).suffix.lower() in IMAGE_SUFFIXES else None


def check_placeholder(name: str, where: str) -> None:
    """DataError where the relative path `name` stands for an image that lies in iCloud alone."""
    folder, _, base = name.rpartition("/")
    stands_for = placeholder_of(base)
    if stands_for and not hidden(folder or "x"):
        raise DataError(
            f"{where}: {stands_for} is not there",
            why=f"{name} is a placeholder of iCloud in the place of the file, which was not downloaded",
            fix="download it (Finder: Download Now), or delete the placeholder",
        )


def conflict_copies(names: Collection[str]) -> list[str]:
    """Those of `names` that a syncing tool has made where two machines changed a file that is there, too."""
    known = names if isinstance(names, (set, frozenset, dict)) else frozenset(names)
    return [name for name in names if any(original in known for original in _originals(name))]


def _originals(name: str) -> Iterator[str]:
    if "onflict" in name or "ONFLICT" in name:
        for pattern in _CONFLICTS:
            found = pattern.fullmatch(name)
            if found:
                yield found[1] + found[2]


def hostile(where: str, member: str, why: str) -> DataError:
    """The error that refuses one member of an archive or folder."""
    return DataError(
        f"{where}: member {member!r} is refused", why=why, fix="remove it, or pack plain image files only"
    )


def clean_root(root: str) -> str:
    """`DataSpec.root` as a relative path with `/`, "" for the top; DataError when it leads outside."""
    parts = [part for part in root.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or root.startswith("/") or _DRIVE.match(root):
        raise DataError(
            f"data.root '{root}' leads outside data.path", fix="give a folder inside data.path, such as train"
        )
    return "/".join(parts)
