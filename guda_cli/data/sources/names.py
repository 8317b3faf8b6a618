"""File names inside folders and archives: what is refused and what is passed over."""

from __future__ import annotations

import re

from guda_cli.errors import DataError

_DRIVE = re.compile(r"[A-Za-z]:")
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


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


def hidden(name: str) -> bool:
    """Whether a relative path is, or lies in, something systems leave behind (.DS_Store, __MACOSX)."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in name.split("/"))


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
