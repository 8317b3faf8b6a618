"""Files that a user asked for: written whole or not at all, into folders that are made.

A file that guda did not write is never overwritten unasked. What guda writes says so: a key in a PNG's text,
the generator of a page, the schema of a JSON document, the first line of a recipe.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guda_cli.errors import DataError
from guda_cli.plain_text import unicode

MARK = "guda"
PNG_MARK = "Software"
"""The PNG text key whose value names guda; keys that begin with `guda:` do as well."""
MAP = ".map.png"
"""How the names of maps end, which may lie beside images: they are no queries."""
DRAWN, PICTURE = "an image that guda drew", "a map or sheet of guda's"
PAGE, DOCUMENT, RECIPE = "a page of guda's", "a JSON document of guda's", "a recipe"
"""What guda writes; each takes the place of its own kind alone."""
_PNG = b"\x89PNG"
_HEAD = 1 << 16  # bytes in which a page or a recipe says who wrote it
_LARGEST = 64 << 20  # JSON documents beyond are none of guda's


def write(path: Path, data: bytes | str, fix: str = "", *, force: bool = False) -> None:
    """Put `data` (text as UTF-8) at `path`; DataError, with `fix` as its remedy, where that cannot be.

    See `check` for `force`.
    """
    content = unicode(data).encode("utf-8") if isinstance(data, str) else data
    try:
        check(path, fix, force=force, content=content, kind=_kind(content[:_HEAD]))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as err:
        raise DataError(f"cannot write {path}", why=err.strerror or str(err), fix=fix) from None


@contextmanager
def whole_folder(folder: Path, fix: str) -> Iterator[Path]:
    """A folder to be filled, which takes the name `folder` when the body is done: all of it or none.

    `folder` must not exist or be empty. DataError, with `fix` as its remedy, where it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty", fix=fix)
    whole, made = folder.absolute(), not folder.exists()
    inside = not made and not os.access(whole.parent, os.W_OK | os.X_OK)
    part = whole / ".guda.part" if inside else whole.with_name(f".{whole.name}.guda.part")
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir()
        yield part
        _take_place(part, whole)
    except OSError as err:
        raise DataError(f"cannot write {folder}", why=err.strerror or str(err), fix=fix) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take_place(part: Path, folder: Path) -> None:
    """Give `part` the name `folder`; one that is there stays, as somebody may stand in it."""
    if not folder.exists():
        part.rename(folder)
        return
    moved: list[Path] = []
    try:
        for path in sorted(part.iterdir()):
            moved.append(path.rename(folder / path.name))
    except OSError:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def check(
    path: Path, fix: str = "", *, force: bool = False, content: bytes | None = None, kind: str = ""
) -> None:
    """DataError where something stands at `path` that guda did not write, unless `force`.

    With `kind` also where guda wrote something of another: a map is not put in the place of a drawn image. An
    empty file holds nothing to lose, and one that holds `content` already nothing is lost of.
    """
    _check_folder(path, fix)
    if not path.exists() or (path.is_file() and force):
        return
    ours = is_ours(path)
    there = _kind(_head(path)) if ours else ""
    if ours and (not kind or there in ("", kind)):
        return
    if content is not None and path.is_file() and path.read_bytes() == content:
        return
    what = "a folder" if path.is_dir() else there or "a file that guda did not write"
    over = "" if path.is_dir() else "; --force overwrites it"
    raise DataError(f"{path} is there already", why=f"it is {what}{over}", fix=fix)


def _check_folder(path: Path, fix: str) -> None:
    """DataError where no file can come to stand at `path`: better before the work than after it."""
    above = path.absolute().parent
    while not above.exists() and above != above.parent and not above.is_symlink():
        above = above.parent
    if not above.is_dir():
        raise DataError(f"cannot write {path}", why=f"{above} is no folder", fix=fix)
    if not os.access(above, os.W_OK | os.X_OK):
        raise DataError(f"cannot write {path}", why=f"the folder {above} cannot be written", fix=fix)


def is_ours(path: Path) -> bool:
    """Whether the file at `path` is empty, or says that guda wrote it."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        head = _head(path)
        if head.startswith(_PNG):
            return _png_is_ours(path)
        if head.lstrip().startswith(b"{"):
            return _json_is_ours(path)
    except (OSError, ValueError):
        return False
    text = head.decode("utf-8", errors="replace")
    page = '<meta name="generator" content="guda' in text
    return not head or page or (text.startswith("# ") and f"by {MARK}" in text.partition("\n")[0])


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _kind(head: bytes) -> str:
    """What a file of guda's is that begins like this; "" where it is empty."""
    if head.startswith(_PNG):
        return DRAWN if f"{MARK}:".encode() in head.partition(b"IDAT")[0] else PICTURE
    if head.lstrip().startswith(b"{"):
        return DOCUMENT
    return (RECIPE if head.startswith(b"# ") else PAGE) if head else ""


def _png_is_ours(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            keys = {str(key): value for key, value in image.info.items()}
    except Exception:  # noqa: BLE001 - whatever Pillow makes of a broken file, it is not guda's
        return False
    return keys.get(PNG_MARK) == MARK or any(key.startswith(f"{MARK}:") for key in keys)


def _json_is_ours(path: Path) -> bool:
    document = json.loads(path.read_text(encoding="utf-8"))
    if str(document.get("schema", "")).startswith(f"{MARK}."):
        return True
    return bool({"images", "model", "sampler", "seed"} <= document.keys())  # samples.json of 0.1.0
