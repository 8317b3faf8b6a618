"""Parts of a batch, checkpointed activations and half precision: the same training, on less memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Network
from guda_cli.errors import RecipeError
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import TrainSpec
from guda_cli.training import loop
from guda_cli.training.precision import mixed
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale, checkpointed
from guda_cli.training.stream import Stream
from guda_cli.training.train import train
from tests.diffusion.tiny import bytes_images, make_schedule, make_unet
from tests.unlearning import text_problem

SPEC = TrainSpec(
    steps=1, batch_size=8, lr=2e-3, warmup_steps=1, ema_decay=0.0, grad_clip=1e9, seed=1, prompt_dropout=0.25
)
LABELS = torch.arange(16) % 3


def by_class(**changes: object) -> tuple[UNetDenoiser, Tensor, Tensor]:
    return UNetDenoiser(make_unet(num_class_embeds=4, **changes), make_schedule()), bytes_images(16), LABELS


def by_prompt() -> tuple[Network, Tensor, Tensor]:
    text = text_problem.text_problem()
    images, cond = text_problem.latents(), text.bank.indices(text.prompts)
    return text_problem.denoiser(text.bank, make_schedule()), images, cond


def gradients(model: tuple[Network, Tensor, Tensor], spec: TrainSpec) -> tuple[list[Tensor], float]:
    """The gradients of the only step of a run, and its loss."""
    denoiser, images, labels = model
    told: list[float] = []
    hooks = loop.Hooks(on_step=told.append)
    train(denoiser, images, spec, labels=labels, dropout=0.25, hooks=hooks)
    return [p.grad.clone() for p in denoiser.network.parameters()], told[0]


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    """Length of the difference of two gradients, in lengths of the second."""
    pairs = list(zip(some, others, strict=True))
    return float(
        torch.stack([(a - b).norm() for a, b in pairs]).norm()
        / torch.stack([b.norm() for _, b in pairs]).norm()
    )


@pytest.mark.parametrize("parts", [2, 3, 8, 50])
def test_parts_give_the_gradient_of_the_whole_batch(parts: int) -> None:
    whole, loss = gradients(by_class(), SPEC)
    split, other = gradients(by_class(), dataclasses.replace(SPEC, gradient_accumulation=parts))
    assert distance(split, whole) < 1e-5
    assert other == pytest.approx(loss, rel=1e-5)
    elsewhere, _ = gradients(by_class(), dataclasses.replace(SPEC, seed=2))
    assert distance(elsewhere, whole) > 0.01


def test_the_parts_are_the_drawn_batch_in_order() -> None:
    class Probe(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.5))
            self.seen: list[Tensor] = []

        def forward(self, x: Tensor, index: Tensor, return_dict: bool = True) -> tuple[Tensor]:
            self.seen.append(index)
            return (self.scale * x,)

    probe = Probe()
    spec = dataclasses.replace(SPEC, gradient_accumulation=3)
    train(UNetDenoiser(probe, make_schedule()), bytes_images(16), spec, hooks=loop.Hooks())
    assert [len(t) for t in probe.seen] == [3, 3, 2]
    assert torch.equal(torch.cat(probe.seen) + 1, Stream(16, 8, 50, (1, 8, 8), seed=1).at(0).t)


@pytest.mark.parametrize("make", [by_class, by_prompt])
def test_checkpointed_activations_give_the_same_gradient(make: object) -> None:
    whole, loss = gradients(make(), SPEC)  # type: ignore[operator]
    model = make()  # type: ignore[operator]
    lean, other = gradients(model, dataclasses.replace(SPEC, gradient_checkpointing=True))
    assert distance(lean, whole) < 1e-5
    assert other == pytest.approx(loss, rel=1e-6)
    assert not model[0].network.is_gradient_checkpointing


def test_checkpointing_computes_blocks_twice_and_draws_the_same_masks() -> None:
    def forwards(on: bool) -> tuple[int, list[Tensor]]:
        model, calls = by_class(dropout=0.3), []
        model[0].network.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
        found, _ = gradients(model, dataclasses.replace(SPEC, gradient_checkpointing=on))
        return len(calls), found

    (once, whole), (twice, lean) = forwards(False), forwards(True)
    assert (once, twice) == (1, 2)
    assert distance(lean, whole) < 1e-5


def test_a_network_that_cannot_checkpoint_is_refused() -> None:
    with (
        pytest.raises(RecipeError, match="gradient_checkpointing"),
        checkpointed(torch.nn.Linear(2, 2), True),
    ):
        pass


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_differs_a_little_and_repeats(precision: str) -> None:
    spec = dataclasses.replace(SPEC, mixed_precision=precision)
    whole, loss = gradients(by_class(), SPEC)
    half, other = gradients(by_class(), spec)
    again, _ = gradients(by_class(), spec)
    assert all(torch.equal(a, b) for a, b in zip(half, again, strict=True))
    assert 0 < distance(half, whole) < 0.05
    assert other == pytest.approx(loss, rel=0.02)
    assert other != loss


def test_only_the_forwards_are_in_half_precision() -> None:
    denoiser, _, labels = by_class()
    kinds: list[torch.dtype] = []
    denoiser.network.conv_in.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    out = mixed(denoiser, "bf16").predict(torch.zeros(2, 1, 8, 8), torch.tensor([1, 5]), labels[:2])
    assert kinds == [torch.bfloat16]
    assert out.dtype == torch.float32
    assert {p.dtype for p in denoiser.network.parameters()} == {torch.float32}
    assert mixed(denoiser, "no") is denoiser


@pytest.mark.parametrize("changes", [{"gradient_accumulation": 3, "mixed_precision": "fp16"}])
def test_resumed_at_every_save_ends_in_the_same_bits(changes: dict[str, object]) -> None:
    spec = dataclasses.replace(SPEC, steps=4, **changes)
    states: dict[int, bytes] = {}

    def run(resume: RunState | None = None, hooks: loop.Hooks | None = None) -> dict[str, Tensor]:
        denoiser, images, _ = by_class()
        return train(denoiser, images, spec, labels=LABELS, resume=resume, hooks=hooks or loop.Hooks())

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole = run(hooks=loop.Hooks(save=save, save_seconds=0.0))
    assert sorted(states) == [1, 2, 3]
    for step, data in states.items():
        again = run(RunState.from_bytes(step, data))
        assert all(torch.equal(again[name], value) for name, value in whole.items()), step


def test_scale_of_a_recipe() -> None:
    spec = TrainSpec(gradient_accumulation=4, gradient_checkpointing=True, mixed_precision="bf16")
    assert Scale.of(spec) == Scale(4, True, "bf16")
    assert Scale.of(TrainSpec()) == Scale()
