"""The bank of prompts: what is kept, what is lent, and that growing changes no embedding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.prompt_bank import PromptBank


class Words:
    """Encodes a prompt as its length, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        self.asked += texts
        lengths = torch.tensor([float(len(text)) for text in texts])
        return {"text": lengths.view(-1, 1, 1).expand(-1, 2, 3).clone()}


def bank() -> tuple[PromptBank, Words]:
    encode = Words()
    return PromptBank(encode, torch.device("cpu")), encode


def test_a_prompt_is_encoded_once_and_the_empty_one_is_first() -> None:
    made, encode = bank()
    assert made.indices(["cat", "", "dog", "cat"]).tolist() == [1, 0, 2, 1]
    assert made.indices(["dog"]).tolist() == [2]
    assert encode.asked == ["", "cat", "dog"]
    assert made.rows(torch.tensor([2, 0]))["text"][:, 0, 0].tolist() == [3.0, 0.0]


def test_many_additions_keep_what_was_there() -> None:
    made, _ = bank()
    texts = ["x" * i for i in range(1, 60)]
    for text in texts:
        made.indices([text])
    found = made.rows(made.indices(["", *texts]))["text"]
    assert found.shape == (60, 2, 3)
    assert torch.equal(found[:, 0, 0], torch.arange(60.0))


def test_what_is_lent_leaves_again_and_known_prompts_stay() -> None:
    made, encode = bank()
    made.indices(["cat"])
    for _ in range(3):
        with made.borrow(["a horse", "cat", "four"]) as lent:
            assert lent.tolist() == [2, 1, 3]
            assert made.rows(lent)["text"][:, 0, 0].tolist() == [7.0, 3.0, 4.0]
        assert len(made) == 2
    assert encode.asked.count("a horse") == 3
    assert made.indices(["mouse"]).tolist() == [2]
    assert made.rows(torch.tensor([0, 1, 2]))["text"][:, 0, 0].tolist() == [0.0, 3.0, 5.0]


def test_lent_prompts_leave_after_an_error_too() -> None:
    made, _ = bank()
    with pytest.raises(RuntimeError, match="stopped"), made.borrow(["gone"]):
        raise RuntimeError("stopped")
    assert len(made) == 1


def test_what_scoring_asked_for_can_be_trained_on() -> None:
    made, _ = bank()
    with torch.inference_mode():
        made.indices(["cat", "dog"])
    weight = torch.ones(3, requires_grad=True)
    (made.rows(torch.tensor([1, 2]))["text"] * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [12.0, 12.0, 12.0]


def test_preloaded_embeddings_are_not_encoded_and_must_have_the_shape() -> None:
    made, encode = bank()
    made.preload(["cat", "dog"], {"text": torch.full((2, 2, 3), 9.0)})
    assert made.rows(made.indices(["dog"]))["text"][0, 0, 0] == 9.0
    assert encode.asked == [""]
    with pytest.raises(ValueError, match=r"\[5, 3\] in a bank of \[2, 3\]"):
        made.preload(["mouse"], {"text": torch.zeros(1, 5, 3)})
