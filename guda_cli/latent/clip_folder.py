"""Another CLIP model than the pipeline's: where its text side lies, and what it is. No torch."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from guda_cli.errors import UsageError
from guda_cli.latent.files import download, is_hub_id
from guda_cli.latent.tokenizer_files import NAMES

WANTED = ("config.json", "model*.safetensors", "model.safetensors.index.json", *NAMES)
CLIP_FIX = (
    "--set unlearn.anchor_encoder=FOLDER or OWNER/MODEL of a CLIP model, or null for the model's own encoder"
)


def locate(name: str) -> Path:
    """The folder `name`, or that of the hub id OWNER/MODEL; UsageError when it is neither, MissingError."""
    return _local(name) or download(name, WANTED, CLIP_FIX)


@lru_cache
def identity(name: str) -> str:
    """What enters a key: of a folder the SHA-256 of its files, wherever it lies; of a hub's model its id.

    UsageError as `locate`. A hub id is not resolved, so that a plan needs no hub.
    """
    folder = _local(name)
    if folder is None:
        return name
    sha = hashlib.sha256(b"guda.clip-text/1\0")
    for path in sorted({path for pattern in WANTED for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sha.update(f"{path.name}\0{digest}\0".encode())
    return f"clip-text/1:{sha.hexdigest()}"


def _local(name: str) -> Path | None:
    """The folder `name`; None for a hub id."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(name):
        raise UsageError(
            f"unknown encoder '{name}'", why="there is no such folder and it is no hub id", fix=CLIP_FIX
        )
    return None
