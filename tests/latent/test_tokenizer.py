"""The tokenizer learnt from prompts, as transformers opens it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from guda_cli.errors import DataError, UsageError
from guda_cli.latent.tokenizer import cut, load_tokenizer, tokenize, train_tokenizer

PROMPTS = [
    f"a {colour} {thing}, artistic style featuring {style}"
    for colour in ("red", "blue") for thing in ("cat", "dog", "house")
    for style in ("thick black outlines", "smooth gradients", "flat fills without outlines")
]  # fmt: skip
START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return train_tokenizer(PROMPTS, 560)


def test_transformers_opens_the_folder(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    opened, own = CLIPTokenizer.from_pretrained(tmp_path), load_tokenizer(files)
    assert opened.model_max_length == own.model_max_length == 77
    assert (opened.bos_token, opened.eos_token, opened.pad_token) == (START, END, END)
    assert len(opened) == 560
    assert opened.vocab_size == 560
    for text in (*PROMPTS, "", "Élan, 日本 x9's"):
        assert opened(text).input_ids == own(text).input_ids


def test_vocabulary_and_merges_alone_say_the_same(files: dict[str, str]) -> None:
    """What versions of transformers before 5 read."""
    old = {name: files[name] for name in ("vocab.json", "merges.txt", "tokenizer_config.json")}
    one, other = load_tokenizer(files), load_tokenizer(old)
    for text in (*PROMPTS, "", "Élan, 日本 x9's"):
        assert one(text).input_ids == other(text).input_ids


def test_numbering_is_clip_s(files: dict[str, str]) -> None:
    vocab = json.loads(files["vocab.json"])
    tokens = sorted(vocab, key=vocab.__getitem__)
    assert list(vocab.values()) == list(range(560))
    assert all(len(token) == 1 for token in tokens[:256])
    assert tokens[256:512] == [token + "</w>" for token in tokens[:256]]
    merges = [line.split(" ") for line in files["merges.txt"].splitlines()[1:]]
    assert tokens[512:558] == ["".join(pair) for pair in merges]
    assert tokens[558:] == [START, END]


def test_frequent_words_become_tokens_and_case_is_lost(files: dict[str, str]) -> None:
    tokenizer = load_tokenizer(files)
    words = tokenizer.convert_ids_to_tokens(tokenizer("Artistic STYLE,  featuring").input_ids)
    assert words == [START, "artistic</w>", "style</w>", ",</w>", "featuring</w>", END]


def test_no_text_is_unknown(files: dict[str, str]) -> None:
    """Words never seen fall into bytes; the unknown token, which also ends a prompt, is never met."""
    tokenizer = load_tokenizer(files)
    for text in ("zyx qqq", "日本語", "émigré", "€5 ½", "emoji \U0001f600!"):
        ids = tokenizer(text).input_ids
        assert tokenizer.eos_token_id not in ids[1:-1], text
        assert len(ids) > 3
        assert "".join(tokenizer.decode(ids[1:-1]).split()) == "".join(text.split())


def test_the_same_words_give_the_same_files(files: dict[str, str]) -> None:
    """Also in another process, whose hashes have another seed."""
    assert train_tokenizer(list(reversed(PROMPTS)), 560) == files
    code = (
        "import json, sys; from guda_cli.latent.tokenizer import train_tokenizer;"
        "print(json.dumps(train_tokenizer(json.load(sys.stdin), 560)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(PROMPTS), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == files


def test_sizes() -> None:
    with pytest.raises(UsageError, match="513"):
        train_tokenizer(PROMPTS, 513)
    assert len(load_tokenizer(train_tokenizer(PROMPTS, 514))) == 514
    few = load_tokenizer(train_tokenizer(["ab ab"], 2000))
    assert len(few) == 515
    assert few.convert_ids_to_tokens(few("ab").input_ids) == [START, "ab</w>", END]


def test_tokens_are_padded_and_cut_to_77(files: dict[str, str]) -> None:
    tokenizer = load_tokenizer(files)
    ids = tokenize(tokenizer, ["a cat", "", "cat " * 100])
    assert ids.shape == (3, 77)
    assert ids.dtype == torch.int64
    end = tokenizer.eos_token_id
    assert ids[1].tolist() == [tokenizer.bos_token_id] + [end] * 76
    assert ids[0, 3:].tolist() == [end] * 74
    assert ids[2, -1] == end
    assert (ids[2, 1:-1] == ids[0, 2]).all()
    assert tokenize(tokenizer, []).shape == (0, 77)


def test_what_is_cut_is_said(files: dict[str, str]) -> None:
    tokenizer = load_tokenizer(files)
    fits, longer, longest = ("cat " * 75 + end for end in ("", "Red dog", "red dog red"))
    assert cut(tokenizer, [longer, fits, "", longest]) == {longer: "red dog", longest: "red dog red"}
    assert cut(tokenizer, []) == {}


@pytest.mark.parametrize("name", ["../x.json", "a/b", "a\\b", "..", "", "C:x", "a\0"])
def test_a_file_s_name_with_a_path_is_refused(files: dict[str, str], name: str) -> None:
    with pytest.raises(DataError, match="named"):
        load_tokenizer({**files, name: "{}"})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}'])
def test_a_damaged_file_is_refused(files: dict[str, str], text: str) -> None:
    with pytest.raises(DataError):
        load_tokenizer({"tokenizer.json": text, "tokenizer_config.json": files["tokenizer_config.json"]})


def test_no_vocabulary_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(DataError):
        load_tokenizer({"tokenizer_config.json": files["tokenizer_config.json"]})
