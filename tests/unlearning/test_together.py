"""Groups unlearned in one step: as each alone, up to rounding."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from guda_cli.diffusion.networks import Weights
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import UnlearnSpec
from guda_cli.training import loop, stacked
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.together import possible, unlearn_together
from guda_cli.unlearning.unlearn import unlearn
from tests.diffusion.tiny import bytes_images, make_schedule, make_unet

COUNT, SHAPE = 12, (1, 8, 8)
GROUPS = ((0, 1, 2), (3, 7), (4, 5, 6, 8))
SPEC = UnlearnSpec(operator="retrack", steps=6, batch_size=4, lr=1e-3, neighbours=3, t_min=0.0)


def problems(spec: UnlearnSpec, **beside: Any) -> list[Problem]:
    found = []
    for rows in GROUPS:
        forget = torch.zeros(COUNT, dtype=torch.bool)
        forget[list(rows)] = True
        found.append(Problem(bytes_images(COUNT, SHAPE), forget, make_schedule("linear", 60), spec, **beside))
    return found


def denoiser(dtype: torch.dtype = torch.float64) -> UNetDenoiser:
    """In float64, where rounding is no part of what is compared: Adam makes steps of gradients that are 0."""
    return UNetDenoiser(make_unet(add_attention=True).to(dtype), make_schedule("linear", 60))


def hooks() -> list[loop.Hooks]:
    return [loop.Hooks() for _ in GROUPS]


NONE: list[RunState | None] = [None] * len(GROUPS)


def apart(one: Weights, other: Weights) -> torch.Tensor:
    """How far each number of one is from the other's."""
    assert one.keys() == other.keys()
    # softmax does not see the bias of its keys: its gradient is rounding
    names = [name for name in one if not name.endswith("to_k.bias")]
    return torch.cat([(one[name] - other[name]).abs().flatten().double() for name in names])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"operator": "retrack-zero"},
        {"operator": "neggrad", "forget_weight": 0.1},
        {"operator": "finetune"},
        {"retain": "distill"},
        {"forget_share": 0.5, "retain": "distill"},
        {"guard": True},
        {"params": "attn"},
        {"lr": 1e-2},
    ],
    ids=str,
)
def test_as_each_alone(changes: dict[str, Any]) -> None:
    spec = dataclasses.replace(SPEC, **changes)
    assert possible(spec, Scale())
    teacher = denoiser() if spec.retain == "distill" else None
    found = unlearn_together(denoiser(), problems(spec), teacher=teacher, resume=NONE, hooks=hooks())
    before = denoiser().network.state_dict()
    for own, problem in zip(found, problems(spec), strict=True):
        alone = unlearn(denoiser(), problem, teacher=teacher, hooks=loop.Hooks())
        assert apart(own, alone).max() < 1e-7
        assert apart(own, {name: before[name] for name in own}).max() > 1e-3
    assert not all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_in_float32_as_each_alone_up_to_rounding() -> None:
    found = unlearn_together(denoiser(torch.float32), problems(SPEC), resume=NONE, hooks=hooks())
    for own, problem in zip(found, problems(SPEC), strict=True):
        far = apart(own, unlearn(denoiser(torch.float32), problem, hooks=loop.Hooks()))
        assert float((far < 1e-5).double().mean()) > 0.999
        assert far.max() < SPEC.steps * SPEC.lr


def test_states_go_on_alone_and_together() -> None:
    """A run that was interrupted in company goes on by itself, and the other way round."""
    kept: list[RunState] = []

    class Stop(KeyboardInterrupt):
        pass

    def stop_at(step: int) -> loop.Hooks:
        def count(_: float) -> None:
            nonlocal seen
            seen += 1
            if seen == step:
                raise Stop

        seen = 0
        return loop.Hooks(on_step=count, save=kept.append)

    whole = [unlearn(denoiser(), problem, hooks=loop.Hooks()) for problem in problems(SPEC)]
    with pytest.raises(Stop):
        unlearn_together(
            denoiser(), problems(SPEC), resume=NONE,
            hooks=[loop.Hooks(save=kept.append), loop.Hooks(save=kept.append), stop_at(3)],
        )  # fmt: skip
    assert [state.step for state in kept] == [3, 3, 3]
    kept = [RunState.from_bytes(state.step, state.to_bytes()) for state in kept]
    alone = unlearn(denoiser(), problems(SPEC)[1], resume=kept[1], hooks=loop.Hooks())
    assert apart(alone, whole[1]).max() < 1e-7
    found = unlearn_together(denoiser(), problems(SPEC), resume=kept, hooks=hooks())
    assert max(apart(a, b).max() for a, b in zip(found, whole, strict=True)) < 1e-7
    kept = []
    for problem in problems(SPEC):
        with pytest.raises(Stop):
            unlearn(denoiser(), problem, hooks=stop_at(2))
    found = unlearn_together(denoiser(), problems(SPEC), resume=kept, hooks=hooks())
    assert max(apart(a, b).max() for a, b in zip(found, whole, strict=True)) < 1e-7


def test_one_that_diverges_parts_them() -> None:
    spec, saved = dataclasses.replace(SPEC, lr=1e30), list[int]()
    own = [loop.Hooks(save=lambda state: saved.append(state.step)) for _ in GROUPS]
    with pytest.raises(stacked.Parted):
        unlearn_together(denoiser(torch.float32), problems(spec), resume=NONE, hooks=own)
    assert len(set(saved)) <= 1  # all of one step, with finite weights or none


def test_what_must_go_alone() -> None:
    assert possible(SPEC, Scale(accumulation=2))
    assert not possible(dataclasses.replace(SPEC, operator="erasediff"), Scale())
    assert not possible(dataclasses.replace(SPEC, operator="siss"), Scale())
    assert not possible(SPEC, Scale(checkpointing=True))
    assert not possible(SPEC, Scale(precision="bf16"))
    assert stacked.dropout_free(make_unet())
    assert not stacked.dropout_free(make_unet(dropout=0.1))
