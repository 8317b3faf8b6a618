"""Loops are strict about determinism, and say where an operation has no such form."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from guda_cli.training import determinism, loop
from guda_cli.workflow.project import compute


@pytest.fixture(autouse=True)
def mode_as_before() -> Iterator[None]:
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def run(hooks: loop.Hooks, *, lacking: bool) -> list[int]:
    """The mode in each step of a run of three; `lacking` where a step has an operation of that kind."""
    model = torch.nn.Linear(2, 1)
    modes: list[int] = []

    def loss_at(step: int) -> Tensor:
        modes.append(torch.get_deterministic_debug_mode())
        if lacking and step == 1:  # which torch has no deterministic form of, on any device
            torch.zeros(4).put_(torch.tensor([1]), torch.tensor([2.0]))
        return model(torch.ones(3, 2)).square().mean()

    loop.run(model, loss_at, loop.LoopSpec(steps=3, lr=0.1, seed=0), hooks=hooks)
    return modes


def test_a_loop_is_strict_and_leaves_the_mode_as_it_was() -> None:
    torch.set_deterministic_debug_mode("warn")
    hooks = loop.Hooks()
    assert run(hooks, lacking=False) == [2, 2, 2]
    assert torch.get_deterministic_debug_mode() == 1
    assert hooks.repeatable


def test_without_the_programs_setup_nothing_is_changed() -> None:
    torch.set_deterministic_debug_mode("default")
    assert run(loop.Hooks(), lacking=True) == [0, 0, 0]


def test_what_has_no_deterministic_form_is_told_once_and_the_step_taken() -> None:
    compute.setup("cpu")
    told: list[str] = []
    hooks = loop.Hooks(say=told.append)
    assert run(hooks, lacking=True) == [2, 2, 1, 1]  # the second step twice
    assert not hooks.repeatable
    assert len(told) == 1
    assert "ends in other bits" in told[0]
    assert torch.get_deterministic_debug_mode() == 1


def test_a_warning_of_that_kind_is_no_error_where_warnings_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute.setup("cpu")
        torch.zeros(4).put_(torch.tensor([1]), torch.tensor([2.0]))
        warnings.warn(
            "Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly enable "
            "determinism call torch.use_deterministic_algorithms(True, warn_only=False).",
            UserWarning,
            stacklevel=1,
        )


def test_other_errors_are_none_of_its_business() -> None:
    with determinism.strict():
        assert not determinism.give_up(RuntimeError("shapes do not match"))
