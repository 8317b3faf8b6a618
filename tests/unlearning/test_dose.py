"""A given share of each batch from the group: what is replaced, what stays, what it costs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from guda_cli.errors import RecipeError
from guda_cli.sections import UnlearnSpec
from guda_cli.settings import reading as recipes
from guda_cli.training.stream import Stream
from guda_cli.unlearning import catalog
from guda_cli.unlearning.unlearn import DosedStream

COUNT, BATCH, T, SHAPE = 30, 8, 50, (1, 2, 2)
FORGET = torch.arange(COUNT) % 10 == 3  # 3, 13, 23


def test_half_of_every_batch_is_the_groups_and_the_rest_is_shared() -> None:
    dosed, plain = DosedStream(FORGET, 4, BATCH, T, SHAPE, 7), Stream(COUNT, BATCH, T, SHAPE, 7)
    for step in range(6):
        one, two = dosed.at(step), plain.at(step)
        assert bool(FORGET[one.indices[:4]].all())
        assert torch.equal(one.indices[4:], two.indices[4:])
        assert torch.equal(one.t, two.t)
        assert torch.equal(one.noise, two.noise)


def test_the_groups_images_come_equally_often() -> None:
    dosed = DosedStream(FORGET, 2, BATCH, T, SHAPE, 0)
    shown = torch.cat([dosed.at(step).indices[:2] for step in range(9)])
    assert torch.bincount(shown, minlength=COUNT)[FORGET].tolist() == [6, 6, 6]


def test_it_is_a_function_of_the_step() -> None:
    one, two = (DosedStream(FORGET, 4, BATCH, T, SHAPE, 1) for _ in range(2))
    for step in (5, 0, 3):
        assert torch.equal(one.at(step).indices, two.at(step).indices)


@pytest.mark.parametrize(("share", "entries"), [(0.01, 1), (0.25, 2), (0.5, 4), (0.99, 7)])
def test_a_share_is_one_entry_at_least_and_not_all(share: float, entries: int) -> None:
    assert catalog.dose(UnlearnSpec(operator="retrack", batch_size=BATCH, forget_share=share)) == entries


def test_what_an_anchor_asks_of_the_teacher_is_counted() -> None:
    spec = UnlearnSpec(operator="anchor:awss", steps=10, batch_size=BATCH)
    assert catalog.forwards(spec, 3, 30) == 10 * BATCH * 3.1
    dosed = dataclasses.replace(spec, forget_share=0.5)
    assert catalog.forwards(dosed, 3, 30) == pytest.approx(10 * BATCH * (3 + 0.5 + 0.5 * 0.1))


def test_keys_without_it_stay() -> None:
    spec = UnlearnSpec(operator="anchor:awss")
    assert "forget_share" not in catalog.settings(spec)
    assert catalog.settings(dataclasses.replace(spec, forget_share=0.5))["forget_share"] == 0.5


@pytest.mark.parametrize("operator", ["finetune", "siss"])
def test_operators_to_which_it_means_nothing(operator: str) -> None:
    spec = UnlearnSpec(operator=operator, forget_share=0.5)
    assert catalog.dose(spec) == 0
    assert catalog.settings(spec) == catalog.settings(UnlearnSpec(operator=operator))


@pytest.mark.parametrize(("share", "batch_size"), [(0.0, 8), (1.0, 8), (0.5, 1)])
def test_shares_that_cannot_be(share: float, batch_size: int) -> None:
    data = {"source": "digits", "size": 8, "channels": 1}
    unlearn = {"forget_share": share, "batch_size": batch_size}
    with pytest.raises(RecipeError, match="forget_share is a share"):
        recipes.from_dict({"name": "x", "data": data, "unlearn": unlearn})
