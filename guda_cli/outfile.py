"""Files that a user asked for: written whole or not at all, into folders that are made."""

from __future__ import annotations

from pathlib import Path

from guda_cli.errors import DataError


def write(path: Path, data: bytes | str, fix: str = "") -> None:
    """Put `data` (text as UTF-8) at `path`; DataError, with `fix` as its remedy, where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        temporary.replace(path)
    except OSError as err:
        raise DataError(f"cannot write {path}", why=err.strerror or str(err), fix=fix) from None
