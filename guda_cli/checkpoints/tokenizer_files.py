"""A CLIP tokenizer's text files, old (`vocab.json`, `merges.txt`) and new (`tokenizer.json`). No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from guda_cli.checkpoints.files import check_no_code, json_object, read_text
from guda_cli.checkpoints.supported import CLASSES, SUPPORTED
from guda_cli.errors import DataError

NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files of a tokenizer that are kept; others in its folder are left."""

_CONFIG = "tokenizer_config.json"
_UNLIMITED = 10**6  # transformers writes 1e30 for tokenizers without a limit


def read_tokenizer(folder: Path, text_config: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The files by name, and notes; as they are but for a missing `model_max_length`, which is put in.

    DataError when the folder is no CLIP tokenizer, or makes longer prompts or more tokens than the encoder
    of `text_config` takes.
    """
    files = {name: read_text(folder / name) for name in NAMES if (folder / name).is_file()}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files.keys():
        raise DataError(
            f"{folder}: the tokenizer has no vocabulary",
            why="needed are tokenizer.json, or vocab.json and merges.txt",
        )
    config = json_object(files.get(_CONFIG, "{}"), folder / _CONFIG)
    check_no_code(config, folder / _CONFIG)
    if (config.get("tokenizer_class") or "CLIPTokenizer") not in CLASSES["tokenizer"]:
        raise DataError(f"{folder}: the tokenizer is a {config['tokenizer_class']}", why=SUPPORTED)
    _check_vocabulary(files, text_config.get("vocab_size") or 49408, folder)
    positions, length = text_config.get("max_position_embeddings") or 77, config.get("model_max_length")
    if isinstance(length, (int, float)) and positions < length < _UNLIMITED:
        raise DataError(
            f"{folder}: the tokenizer makes prompts of {length} tokens, the text encoder takes {positions}",
            why="they are of different models",
            fix=f'set "model_max_length": {positions} in {folder / _CONFIG}',
        )
    if isinstance(length, (int, float)) and length <= positions:
        return files, ()
    files[_CONFIG] = json.dumps({**config, "model_max_length": positions}, indent=2, sort_keys=True)
    return files, (f"the tokenizer does not limit prompts: the text encoder's {positions} tokens are used",)


def _check_vocabulary(files: Mapping[str, str], size: int, folder: Path) -> None:
    highest = max(_ids(files, folder), default=-1)
    if highest >= size:
        raise DataError(
            f"{folder}: the tokenizer has {highest + 1} tokens, the text encoder knows {size}",
            why="they are of different models, or tokens were added to one of them only",
            fix="take the tokenizer and the text encoder of one model",
        )


def _ids(files: Mapping[str, str], folder: Path) -> Iterator[int]:
    """Every token's number, by all files that give some; DataError where they are no numbers."""
    for name in ("vocab.json", "added_tokens.json"):
        if name in files:
            yield from _numbers(json_object(files[name], folder / name).values(), folder / name)
    name = "tokenizer.json"
    if name in files:
        content = json_object(files[name], folder / name)
        model, added = content.get("model"), content.get("added_tokens") or ()
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
            raise DataError(f"{folder / name} has no byte-pair vocabulary", why=SUPPORTED)
        if not isinstance(added, (list, tuple)) or not all(isinstance(token, dict) for token in added):
            raise DataError(f"{folder / name}: added_tokens is no list of tokens")
        yield from _numbers(model["vocab"].values(), folder / name)
        yield from _numbers((token.get("id") for token in added), folder / name)


def _numbers(values: Iterable[Any], path: Path) -> Iterator[int]:
    for value in values:
        if not isinstance(value, int):
            raise DataError(
                f"{path}: a token has the number {value!r:.40}", why="it has to be a whole number"
            )
        yield value
