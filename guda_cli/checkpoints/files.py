"""Models of others on disk or on a hub: JSON, downloads, and telling safetensors from pickles. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from guda_cli import git_lfs
from guda_cli.data.sources.hub_cache import snapshot_in
from guda_cli.errors import DataError, MissingError, UsageError

MOST_JSON = 2**26
"""Bytes of a JSON file that is read: lists take thirty times as many in memory."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PICKLE_REASON = "a pickle can run any code when it is loaded, so it is never opened"


def read_json(
    path: Path, what: str = "", fix: str = "give a folder written by save_pretrained"
) -> dict[str, Any]:
    """The JSON object in `path`; DataError when it is missing (with `fix`), damaged or something else.

    `what` names the file's content in messages, its name where empty.
    """
    try:
        size = path.stat().st_size
        if size > MOST_JSON:
            raise DataError(
                f"{path} has {size:,} bytes", why=f"a configuration has {MOST_JSON:,} at the most"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path.parent} has no {what or path.name}", why=f"no file {path}", fix=fix) from None
    except (OSError, ValueError) as err:
        raise DataError(f"{path} cannot be read", why=str(err)) from None
    return json_object(text, path)


def json_object(text: str, path: Path) -> dict[str, Any]:
    """The JSON object in `text`, the content of `path`; DataError when it is damaged or something else."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise DataError(f"{path} cannot be read", why="its JSON is nested too deep") from None
    except ValueError as err:
        why = git_lfs.WHY if git_lfs.is_pointer(text.encode()) else str(err)
        raise DataError(f"{path} cannot be read", why=why) from None
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object")
    return value


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form OWNER/MODEL; says nothing about whether it exists."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and all(name.split("/"))


def download(name: str, patterns: Sequence[str], fix: str, ignore: Sequence[str] = ()) -> Path:
    """Folder with the files of the hub's model `name` that match `patterns`, never those in `ignore`.

    Nothing is fetched that the hub's cache holds already. MissingError with `fix` when it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=list(ignore) or None)
    except Exception as err:  # noqa: BLE001 - offline, gated, unknown: the hub has many errors, one remedy
        raise MissingError(
            f"cannot fetch {name} from the hub",
            why=str(err).splitlines()[0] if str(err) else type(err).__name__,
            fix=fix,
        ) from None
    return Path(folder)


def encoder_folder(name: str, fix: str) -> Path | None:
    """The local folder `name` of an encoder, None for a hub id; UsageError with `fix` when it is neither."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return snapshot_in(folder)
    if not is_hub_id(name):
        raise UsageError(
            f"unknown encoder '{name}'", why="there is no such folder and it is no hub id", fix=fix
        )
    return None


def digest_of(tag: str, paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over `tag` and the names and bytes of files: the same wherever they lie."""
    sha = hashlib.sha256(f"{tag}\0".encode())
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sha.update(f"{path.name}\0{digest}\0".encode())
    return sha.hexdigest()


def check_no_pickle(path: Path) -> None:
    """DataError when `path` is a pickle, by its ending or by its first bytes whatever it is called.

    `torch.save` writes zip archives (older versions: bare pickles); safetensors begin with the length of a
    JSON header.
    """
    if path.suffix.lower() in PICKLES:
        raise _pickle(path, f"{path.name} is a pickle")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as err:
        raise DataError(f"{path} cannot be read", why=err.strerror or str(err)) from None
    if git_lfs.is_pointer(head):
        raise DataError(f"{path} is not there", why=git_lfs.WHY, fix="git lfs pull")
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:9] != b"{"):
        raise _pickle(path, f"{path.name} is a pickle in spite of its name")
    if head[8:9] != b"{":
        raise DataError(f"{path} is not a safetensors file", fix="download it again")


def pickles_only(folder: Path, what: str) -> DataError | None:
    """The error to raise when `folder` has no safetensors but pickles; None when it has no pickles either."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not names:
        return None
    return _pickle(folder, f"{what} has no safetensors weights, only {names[0]}")


def _pickle(path: Path, message: str) -> DataError:
    where = path if path.is_dir() else path.parent
    return DataError(
        f"{where}: {message}",
        why=PICKLE_REASON,
        fix="take a safetensors version, or save the model again with safe_serialization=True",
    )
