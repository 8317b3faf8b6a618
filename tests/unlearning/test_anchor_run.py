"""Whole runs on a tiny trained text-to-image network: anchors forget the group and resume."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import Tensor

from guda_cli.families.stable_diffusion import TextDenoiser
from guda_cli.sections import TrainSpec
from guda_cli.training import loop, train
from guda_cli.training.run_state import RunState
from guda_cli.unlearning import catalog, check, subsets
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.operators.esd import Esd
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.unlearn import unlearn
from tests.unlearning import text_problem
from tests.unlearning.helpers import traits
from tests.unlearning.text_problem import GROUPS, denoiser, entries, of, problem


@functools.cache
def trained_weights() -> dict[str, Tensor]:
    """A network that has learned which latents go with which prompts."""
    p = problem("anchor:awss")
    assert p.text is not None
    fresh = denoiser(p.text.bank, p.schedule)
    spec = TrainSpec(steps=150, batch_size=24, lr=6e-3, warmup_steps=10, ema_decay=0.9)
    return train.train(fresh, p.images, spec, labels=p.cond, dropout=0.1, hooks=loop.Hooks())


def trained(p: Problem) -> TextDenoiser:
    assert p.text is not None
    full = denoiser(p.text.bank, p.schedule)
    full.network.load_state_dict(trained_weights())
    full.network.eval()
    return full


def after(p: Problem, resume: RunState | None = None, hooks: loop.Hooks | None = None) -> dict[str, Tensor]:
    return unlearn(trained(p), p, teacher=trained(p), resume=resume, hooks=hooks or loop.Hooks())


def rises(p: Problem, weights: dict[str, Tensor]) -> Tensor:
    """How much the loss on each of GROUPS rises, as a share of it before."""
    before, now = trained(p), trained(p)
    now.network.load_state_dict(subsets.merge(trained_weights(), weights))
    out = []
    for group in range(len(GROUPS)):
        rows = torch.arange(len(p.images)).view(len(GROUPS), -1)[group].repeat(10)
        one, two = (check.losses(d, p.images, rows, cond=p.cond).mean() for d in (before, now))
        out.append(float(two / one) - 1.0)
    return torch.tensor(out)


@pytest.mark.parametrize(
    ("operator", "params"),
    [("anchor:awss", "full"), ("anchor:style-removed", "full"), ("anchor:awss", "lora:2")],
)
def test_the_groups_prompts_are_forgotten_and_others_kept(operator: str, params: str) -> None:
    lr = 2e-3 if params == "full" else 2e-2
    p = problem(operator, steps=25, lr=lr, batch_size=24, retain="distill", params=params)
    found = rises(p, subsets.stored(after(p), trained_weights(), params))
    gone = GROUPS.index("oil")
    rest = torch.cat([found[:gone], found[gone + 1 :]])
    assert found[gone] > 0.03
    assert found[gone] > 1.5 * rest.max()


@pytest.mark.parametrize("operator", ["anchor:awss", "anchor:matched"])
def test_resumed_at_every_save_it_ends_in_the_same_bits(operator: str) -> None:
    """Also where the bank has to encode anew what it had encoded before the interruption."""
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole = after(problem(operator), hooks=loop.Hooks(save=save, save_seconds=0.0))
    assert sorted(states) == [1, 2]
    for step, data in states.items():
        again = after(problem(operator), resume=RunState.from_bytes(step, data))
        assert all(torch.equal(again[name], whole[name]) for name in whole), step
    assert any(not torch.equal(whole[name], value) for name, value in trained_weights().items())


def test_prompts_that_a_bank_has_already_change_nothing() -> None:
    """Groups unlearned one after the other share a bank."""
    alone = after(problem("anchor:uniform"))
    text = text_problem.text_problem()
    after(of(dataclasses.replace(text, removed=frozenset(["wash"])), "anchor:uniform"))
    shared = after(of(text, "anchor:uniform"))
    assert all(torch.equal(alone[name], shared[name]) for name in alone)


@pytest.mark.parametrize("operator", ["esd", "retrack", "neggrad", "finetune", "siss", "erasediff"])
def test_the_other_operators_take_prompts(operator: str) -> None:
    p = problem(operator, neighbours=3)
    catalog.check(p.spec, traits(text_problem.UNET, text=True))
    weights = after(p)
    assert any(not torch.equal(weights[name], value) for name, value in trained_weights().items())
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_esd_steers_away_from_the_prompt() -> None:
    p = problem("esd", guidance=2.0)
    full = trained(p)
    operator, part = make(p, full), entries(p)
    assert isinstance(operator, Esd)
    assert p.text is not None
    with torch.no_grad():
        steered, nothing = (
            full.network(part.x_t, part.t - 1, encoder_hidden_states=text_problem.encode(texts)).sample
            for texts in ([p.text.prompts[i] for i in part.indices.tolist()], [""] * len(part.t))
        )
    assert not torch.allclose(steered, nothing)
    torch.testing.assert_close(operator.redirect(part).target, nothing - 2.0 * (steered - nothing))
