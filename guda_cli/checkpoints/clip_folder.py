"""Another CLIP model than the pipeline's: where its text side lies, and what it is. No torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from guda_cli.checkpoints.files import digest_of, download, encoder_folder
from guda_cli.checkpoints.tokenizer_files import NAMES

WANTED = ("config.json", "model*.safetensors", "model.safetensors.index.json", *NAMES)
CLIP_FIX = (
    "--set unlearn.anchor_encoder=null"  # the model's own; others are folders or hub ids of CLIP models
)


def locate(name: str) -> Path:
    """The folder `name`, or that of the hub id OWNER/MODEL; UsageError when it is neither, MissingError."""
    return encoder_folder(name, CLIP_FIX) or download(name, WANTED, CLIP_FIX)


@lru_cache
def identity(name: str) -> str:
    """What enters a key: of a folder the SHA-256 of its files, wherever it lies; of a hub's model its id.

    UsageError as `locate`. A hub id is not resolved, so that a plan needs no hub.
    """
    folder = encoder_folder(name, CLIP_FIX)
    if folder is None:
        return name
    paths = sorted({path for pattern in WANTED for path in folder.glob(pattern)})
    return f"clip-text/1:{digest_of('guda.clip-text/1', paths)}"
