"""Models of others on disk or on a hub: JSON, downloads, and telling safetensors from pickles. No torch."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guda_cli import git_lfs
from guda_cli.data.sources.hub_cache import snapshot_in
from guda_cli.errors import DataError, MissingError, UsageError
from guda_cli.plain_text import quoted

INDEX = "model_index.json"
"""What a pipeline's folder says of its components."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PICKLE_REASON = "a pickle can run any code when it is loaded, so it is never opened"
LARGEST_JSON = 32 * 2**20
"""Bytes of a JSON file that is read: it takes up to thirty times as much memory. Tokenizers have a few MB."""
_GGUF = b"GGUF"  # how such files begin
_ATTENTION = (None, "eager", "sdpa")  # implementations that are part of torch; others are fetched from a hub


def read_json(
    path: Path, what: str = "", fix: str = "give a folder written by save_pretrained"
) -> dict[str, Any]:
    """The JSON object in `path`; DataError when it is missing (with `fix`), damaged or something else.

    `what` names the file's content in messages, its name where empty.
    """
    return json_object(read_text(path, what, fix), path)


def read_config(
    path: Path, what: str = "", fix: str = "give a folder written by save_pretrained"
) -> dict[str, Any]:
    """A model's configuration; DataError as `read_json`, and where it asks for code of its own."""
    config = read_json(path, what, fix)
    check_no_code(config, path)
    return config


def read_text(path: Path, what: str = "", fix: str = "") -> str:
    """The text in `path`; DataError when it is missing (with `fix`), too large, or no UTF-8."""
    try:
        _check_ordinary(path)
        if path.stat().st_size > LARGEST_JSON:
            raise DataError(
                f"{path} is larger than {LARGEST_JSON // 2**20} MiB", why="no model has such a file"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        why = f"{path} is a link that leads nowhere" if path.is_symlink() else f"no file {path}"
        raise DataError(f"{path.parent} has no {what or path.name}", why=why, fix=fix) from None
    except (OSError, ValueError) as err:
        raise DataError(f"{path} cannot be read", why=str(err)) from None
    if git_lfs.is_pointer(text[:64].encode()):
        raise DataError(f"{path} cannot be read", why=git_lfs.WHY, fix="git lfs pull")
    return text


def _check_ordinary(path: Path) -> None:
    """DataError for folders, pipes and devices, some of which never end; OSError where nothing is there."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is no ordinary file", fix="download it again")


def check_no_code(config: Mapping[str, Any], path: Path) -> None:
    """DataError where a configuration asks, at any depth, for code that is not that of the libraries.

    Such a model is another one without its code, and its code is never run: neither Python files beside it
    (`auto_map`) nor kernels of a hub (`attn_implementation`).
    """
    inner: list[Mapping[str, Any]] = [config]
    while inner:
        part = inner.pop()
        inner += [value for value in part.values() if isinstance(value, Mapping)]
        asked = [
            key
            for key, value in part.items()
            if (key == "auto_map" and value)
            or (str(key).endswith("attn_implementation") and value not in _ATTENTION)
        ]
        if asked:
            raise DataError(
                f"{path} asks for code of its own ({asked[0]} = {part[asked[0]]!r:.80})",
                why="code that comes with a model is never run, and without it this is another model",
                fix="give a model whose classes are those of diffusers and transformers",
            )


def json_object(text: str, path: Path) -> dict[str, Any]:
    """The JSON object in `text`, the content of `path`; DataError when it is damaged or something else."""
    try:
        value = json.loads(text)
    except ValueError as err:
        raise DataError(f"{path} cannot be read", why=str(err)) from None
    except RecursionError:
        raise DataError(f"{path} cannot be read", why="its JSON is nested too deep") from None
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
        return model_folder(folder, "")
    if not is_hub_id(name):
        raise UsageError(
            f"unknown encoder '{name}'", why="there is no such folder and it is no hub id", fix=fix
        )
    return None


def model_folder(folder: Path, option: str = "--from") -> Path:
    """`folder`, or the snapshot in it where it is a model's in the hub's cache (`models--OWNER--NAME`).

    DataError naming a snapshot to give with `option` where it is not said which is meant, or none is there.
    """
    found = snapshot_in(folder)
    snapshots = folder / "snapshots"
    if found != folder or not (snapshots.is_dir() and folder.name.startswith("models--")):
        return found
    there = sorted(entry for entry in snapshots.iterdir() if entry.is_dir())
    named = snapshots / _main(folder)
    if len(there) == 1 or named in there:
        return named if named in there else there[0]
    owner_and_name = folder.name.removeprefix("models--").replace("--", "/", 1)
    raise DataError(
        f"{folder} is a folder of the hub's cache with {len(there)} snapshots",
        why="refs/main does not say which one is meant" if there else "nothing of it has been fetched whole",
        fix=f"{option or 'give'} {quoted(str(there[-1]))}" if there else f"hf download {owner_and_name}",
    )


def _main(folder: Path) -> str:
    try:
        name = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return name if Path(name).name == name else ""


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
        _check_ordinary(path)
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as err:
        raise DataError(f"{path} cannot be read", why=err.strerror or str(err)) from None
    if git_lfs.is_pointer(head):
        raise DataError(f"{path} is not there", why=git_lfs.WHY, fix="git lfs pull")
    if head[:4] == _GGUF:
        raise _gguf(path)
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:9] != b"{"):
        raise _pickle(path, f"{path.name} is a pickle in spite of its name")
    if head[8:9] != b"{":
        raise DataError(f"{path} is not a readable safetensors file", fix="download it again")


def pickles_only(folder: Path, what: str) -> DataError | None:
    """The error to raise when `folder` has no safetensors but pickles; None when it has no pickles either."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not names:
        return None
    return _pickle(folder, f"{what} has no safetensors weights, only {names[0]}")


def gguf_only(folder: Path) -> DataError | None:
    """The error to raise when `folder` has GGUF files in place of safetensors; None when it has none."""
    names = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    return _gguf(names[0]) if names else None


def _gguf(path: Path) -> DataError:
    return DataError(
        f"{path} is a GGUF file",
        why="its weights are quantised: they are codes of numbers, and no longer what was trained",
        fix="give the model as it was before, in safetensors",
    )


def _pickle(path: Path, message: str) -> DataError:
    where = path if path.is_dir() else path.parent
    return DataError(
        f"{where}: {message}",
        why=PICKLE_REASON,
        fix="take a safetensors version, or save the model again with safe_serialization=True",
    )
