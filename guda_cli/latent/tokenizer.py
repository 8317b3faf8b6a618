"""A CLIP tokenizer: learnt from a recipe's prompts, opened from a pipeline's files, and run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guda_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
LENGTH = 77  # tokens of a CLIP text model's input
BASE = 2 * 256 + 2  # every byte, within and at the end of a word, and START and END: no text is unknown


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> dict[str, str]:
    """The files (name -> text) of a CLIP tokenizer of `vocabulary` tokens learnt from `texts`.

    Byte-pair encoding over lower-cased bytes with an end-of-word mark (Sennrich et al. 2016; Radford et al.
    2021), numbered as CLIP's is: bytes, bytes that end a word, merges in the order learnt, START and END
    (which also pads). A pure function of the texts' words. Fewer tokens when the texts have no more
    pairs to merge; UsageError for a `vocabulary` below 514, the bytes alone.
    """
    if vocabulary < BASE:
        raise UsageError(
            f"a CLIP tokenizer cannot have {vocabulary} tokens",
            why=f"every byte, within and at the end of a word, and two marks are {BASE}",
            fix="--set text.vocabulary=1024",
        )
    alphabet, merges = _learn(texts, vocabulary - 2)
    words = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), START, END])
    vocab = {token: index for index, token in enumerate(words)}
    with tempfile.TemporaryDirectory() as folder:
        _clip(vocab, merges).save_pretrained(folder)
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
    # Versions of transformers before 5 read these two, later ones tokenizer.json.
    files["vocab.json"] = json.dumps(vocab, ensure_ascii=False)
    files["merges.txt"] = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    return files


def load_tokenizer(files: Mapping[str, str]) -> CLIPTokenizer:
    """The CLIPTokenizer in `files` (name -> text); DataError for names with a path and unreadable files."""
    from transformers import CLIPTokenizer

    bad = [name for name in files if name in (".", "..") or not name or set(name) & set("/\\:\0")]
    if bad:
        raise DataError(
            f"a tokenizer's file is named {bad[0]!r}", why="a name with a path could be written anywhere"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8", newline="")
        try:
            found: CLIPTokenizer = CLIPTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as err:  # noqa: BLE001 - damaged files end in many kinds of error
            raise DataError(
                "transformers cannot open the tokenizer",
                why=str(err).splitlines()[0].replace(folder, "it") if str(err) else type(err).__name__,
                fix="use a folder with tokenizer.json, or vocab.json and merges.txt",
            ) from None
    if len(found) <= 3 or found.eos_token_id is None:
        raise DataError("the tokenizer has no vocabulary", fix="use a folder with tokenizer.json")
    return found


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids int64 [n, 77], padded and cut to that length as `StableDiffusionPipeline` does."""
    if not texts:
        return torch.zeros((0, LENGTH), dtype=torch.int64)
    ids: Tensor = tokenizer(
        list(texts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def cut(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> dict[str, str]:
    """Of each of `texts` that does not fit into 77 tokens the end that is not read, in lower case."""
    if not texts:
        return {}
    found = zip(texts, tokenizer(list(texts), verbose=False).input_ids, strict=True)
    return {text: str(tokenizer.decode(ids[LENGTH - 1 : -1])) for text, ids in found if len(ids) > LENGTH}


def _learn(texts: Sequence[str], size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """CLIP's base tokens, and the merges that make `size` tokens of them."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    letters = sorted(ByteLevel.alphabet())
    alphabet = [*letters, *(letter + WORD_END for letter in letters)]
    shell = _clip({START: 0, END: 1}, []).backend_tokenizer
    learner = Tokenizer(BPE(continuing_subword_prefix="", end_of_word_suffix=WORD_END))
    learner.normalizer, learner.pre_tokenizer = shell.normalizer, shell.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=alphabet,  # numbered first and in this order, so that ties are broken alike every time
        initial_alphabet=letters,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt: list[Any] = json.loads(learner.to_str())["model"]["merges"]
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in learnt]
    return alphabet, [(str(a), str(b)) for a, b in pairs]


def _clip(vocab: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    # the annotation of `merges` has strings, the constructor takes pairs only
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)  # type: ignore[arg-type]
