"""ESD: the guided target of a class-conditional network."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from guda_cli.families.pixels import UNetDenoiser
from guda_cli.training import loop
from guda_cli.unlearning.operators.base import ForgetBatch
from guda_cli.unlearning.operators.esd import Esd
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.unlearn import step_loss, unlearn
from tests.diffusion.tiny import PREDICTIONS, bytes_images, make_denoiser, make_schedule
from tests.unlearning.helpers import COUNT, Scaled, entries, problem, stream

CLASSES = torch.arange(COUNT) % 3


def conditional(prediction: str = "epsilon", seed: int = 0) -> UNetDenoiser:
    return make_denoiser(make_schedule("linear", 60, prediction), seed, num_class_embeds=4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 1.0, 2.5])
def test_target_by_hand(eta: float, prediction: str) -> None:
    full = conditional(prediction)
    p = problem("esd", full.schedule, group=(1, 4, 7, 10), guidance=eta, forget_weight=0.5)
    p = dataclasses.replace(p, images=bytes_images(COUNT, (1, 8, 8)), cond=CLASSES)
    operator = make(p, full)
    assert isinstance(operator, Esd)
    part = operator.shown(entries(p))
    assert part.cond is not None
    assert set(part.cond.tolist()) == {1}
    with torch.no_grad():
        steered = full.network(part.x_t, part.t - 1, class_labels=part.cond).sample
        nothing = full.network(part.x_t, part.t - 1, class_labels=torch.full_like(part.t, 3)).sample
    assert not torch.allclose(steered, nothing)
    found = operator.redirect(part)
    torch.testing.assert_close(found.target, nothing - eta * (steered - nothing))
    assert found.weight.tolist() == [0.5] * len(part.rows)


def test_the_group_is_shown_with_its_class_even_where_others_are_not() -> None:
    full = conditional()
    p = problem("esd", full.schedule, group=(1, 4, 7, 10))
    p = dataclasses.replace(
        p, images=bytes_images(COUNT, (1, 8, 8)), cond=CLASSES, null=torch.tensor(3), dropout=1.0
    )
    model = Scaled(full.schedule)
    loss = step_loss(model, None, make(p, full), p, stream(p), 0)
    forgotten = p.forget[stream(p).at(0).indices]
    [(_, cond)] = model.calls
    assert cond is not None
    assert cond.tolist() == [1 if gone else 3 for gone in forgotten]
    assert torch.isfinite(loss)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_conditions_follow_the_stream(dropout: float) -> None:
    p = dataclasses.replace(problem("neggrad"), cond=CLASSES, null=torch.tensor(3), dropout=dropout)
    model = Scaled(p.schedule)
    step_loss(model, None, make(p), p, stream(p), 2)
    expected = CLASSES[stream(p).at(2).indices]
    expected[stream(p).unlabelled(2, dropout)] = 3
    [(_, cond)] = model.calls
    assert torch.equal(cond, expected)
    assert CLASSES.max() == 2  # the problem's own labels are left alone


def test_without_conditions_it_is_refused() -> None:
    with pytest.raises(ValueError, match="condition"):
        make(problem("esd"), conditional())
    with pytest.raises(ValueError, match="full model"):
        make(dataclasses.replace(problem("esd"), cond=CLASSES))


def test_unlearning_moves_the_class_away() -> None:
    """A run that distils the rest: the group's class moves to the guided target, another stays nearer."""
    full = conditional()
    spec = dataclasses.replace(problem("esd").spec, steps=25, batch_size=12, retain="distill")
    images = bytes_images(COUNT, (1, 8, 8))
    p = dataclasses.replace(
        problem("esd", full.schedule), images=images, spec=spec, cond=CLASSES, forget=CLASSES == 1,
        null=torch.tensor(3), dropout=0.1,
    )  # fmt: skip
    weights = unlearn(conditional(), p, teacher=full, hooks=loop.Hooks())
    after = conditional()
    after.network.load_state_dict(weights)
    x_t = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.full((8,), 40)

    label = torch.ones(8, dtype=torch.int64)
    operator = make(p, full)
    assert isinstance(operator, Esd)
    goal = operator.redirect(ForgetBatch(label, x_t, x_t, x_t, t, label)).target
    with torch.no_grad():
        far, near = (float((d.predict(x_t, t, label) - goal).square().mean()) for d in (full, after))
        moved, other = (
            float((after.predict(x_t, t, c) - full.predict(x_t, t, c)).square().mean())
            for c in (label, 2 * label)
        )
    assert near < 0.7 * far
    assert other < moved
