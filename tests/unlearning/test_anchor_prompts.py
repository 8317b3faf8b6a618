"""Anchor prompts of a run are encoded together beforehand, within bounds, and leave the bank again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.families.stable_diffusion import ROW
from guda_cli.training import loop
from guda_cli.training.scale import Scale
from guda_cli.unlearning.operators import anchor_prompts
from guda_cli.unlearning.operators.anchor_prompts import AnchorPrompts
from guda_cli.unlearning.operators.base import Drawn
from guda_cli.unlearning.unlearn import unlearn
from tests.unlearning import text_problem
from tests.unlearning.helpers import ANCHORS
from tests.unlearning.text_problem import COUNT, denoiser, of


class Reader:
    """Encodes as the other tests' bank does, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        self.calls.append(list(texts))
        return {ROW: text_problem.encode(texts)}


def made(operator: str, parts: int = 1, **changes: object) -> tuple[dict[str, Tensor], Reader, PromptBank]:
    """What an unlearning ends with, what was encoded in it, and the bank."""
    reader = Reader()
    bank = PromptBank(reader, torch.device("cpu"))
    p = of(text_problem.text_problem(bank), operator, steps=8, **changes)
    reader.calls.clear()
    full = denoiser(bank, p.schedule)
    weights = unlearn(denoiser(bank, p.schedule), p, teacher=full, scale=Scale(parts), hooks=loop.Hooks())
    return weights, reader, bank


@pytest.mark.parametrize("operator", ANCHORS)
def test_one_pass_before_the_first_step_and_none_is_left(operator: str) -> None:
    _, reader, bank = made(operator)
    expected = 0 if operator == "anchor:matched" else 1  # whose partners' prompts the bank has
    assert len(reader.calls) == expected
    for texts in reader.calls:
        assert len(texts) == len(set(texts)) > 1
    assert len(bank) == COUNT + 1


def test_no_more_than_the_bound_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, one, _ = made("anchor:uniform")
    row = text_problem.bank().row_bytes
    assert row == text_problem.TOKENS * text_problem.WIDTH * 4
    monkeypatch.setattr(anchor_prompts, "BOUND", 8 * row)
    bounded, many, _ = made("anchor:uniform")
    assert all(torch.equal(bounded[name], value) for name, value in whole.items())
    assert len(many.calls) > 1
    assert max(len(texts) for texts in many.calls) <= 8 < len(one.calls[0])
    assert {text for texts in many.calls for text in texts} == set(one.calls[0])


@pytest.mark.parametrize("operator", ANCHORS)
def test_parts_of_a_batch_find_their_own_prompts(operator: str) -> None:
    whole, _, _ = made(operator)
    parts, reader, _ = made(operator, 3)
    assert len(reader.calls) <= 1
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=1e-3)


def test_where_stretches_begin_does_not_depend_on_where_a_run_is_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a text is encoded beside the same others: an encoder may round otherwise beside others."""
    monkeypatch.setattr(anchor_prompts, "BOUND", 8 * text_problem.bank().row_bytes)

    def stretches(first: int) -> list[list[str]]:
        reader = Reader()
        bank = PromptBank(reader, torch.device("cpu"))
        p = of(text_problem.text_problem(bank), "anchor:uniform", steps=8)
        reader.calls.clear()
        ahead = AnchorPrompts(
            bank, lambda drawn: [f"{drawn.step} {i}" for i in drawn.indices.tolist()], p.forget,
            text_problem.stream(p), 8,
        )  # fmt: skip
        for step in range(first, 8):
            indices = text_problem.stream(p).indices(step)
            entries = p.forget[indices].nonzero().flatten()
            found = ahead.of(Drawn(indices[entries], entries, step, len(indices)))
            texts = [f"{step} {i}" for i in indices[entries].tolist()]
            assert torch.equal(bank.rows(found)[ROW], text_problem.encode(texts))
        ahead.close()
        return reader.calls

    from_the_start = stretches(0)
    assert len(from_the_start) > 2
    for step in range(1, 8):
        taken_up = stretches(step)
        assert taken_up == from_the_start[-len(taken_up) :]
