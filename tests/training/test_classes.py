"""Class-conditional training: which entries lose their class, and what the network is shown."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import TrainSpec
from guda_cli.training import loop
from guda_cli.training.stream import Stream
from guda_cli.training.train import train, with_dropped
from tests.diffusion.tiny import bytes_images, make_schedule, make_unet

SPEC = TrainSpec(steps=3, batch_size=8, lr=2e-3, warmup_steps=1, ema_decay=0.0, seed=1, class_dropout=0.25)
LABELS = torch.arange(16) % 3


class TestDropout:
    def test_the_share_is_the_probability(self) -> None:
        """n draws of probability p: within 4 standard errors, and no draw is the same in two steps."""
        stream = Stream(10, 1000, 50, (1, 2, 2), seed=3)
        drawn = torch.stack([stream.unlabelled(step, 0.1) for step in range(40)]).double()
        assert float(drawn.mean()) == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / drawn.numel()) ** 0.5)
        assert len({tuple(row.tolist()) for row in drawn}) == 40
        assert not stream.unlabelled(0, 0.0).any()

    def test_it_is_a_pure_function_of_seed_and_step(self) -> None:
        stream = Stream(13, 50, 50, (1, 2, 2), seed=3)
        known = [stream.unlabelled(step, 0.3) for step in range(6)]
        torch.manual_seed(77)
        for step in (5, 0, 2, 2):
            other = Stream(13, 50, 50, (1, 2, 2), seed=3, keep=torch.arange(13) > 4)
            assert torch.equal(stream.unlabelled(step, 0.3), known[step])
            assert torch.equal(other.unlabelled(step, 0.3), known[step]), "leaving images out moves nothing"
        assert not torch.equal(Stream(13, 50, 50, (1, 2, 2), seed=4).unlabelled(0, 0.3), known[0])

    def test_a_higher_share_drops_more_of_the_same(self) -> None:
        stream = Stream(13, 200, 50, (1, 2, 2), seed=3)
        few, many = stream.unlabelled(0, 0.1), stream.unlabelled(0, 0.5)
        assert torch.equal(few & many, few)
        assert int(many.sum()) > int(few.sum()) > 0

    def test_dropped_entries_are_of_the_null_class(self) -> None:
        labels, dropped = torch.tensor([0, 1, 2]), torch.tensor([False, True, False])
        assert with_dropped(labels, dropped, 9).tolist() == [0, 9, 2]
        assert with_dropped(labels, dropped, None).tolist() == [0, 1, 2]


def fit(
    unet: torch.nn.Module, images: Tensor, spec: TrainSpec, keep: Tensor | None = None
) -> dict[str, Tensor]:
    """A class-conditional training on LABELS."""
    denoiser, dropout = UNetDenoiser(unet, make_schedule()), spec.class_dropout
    return train(denoiser, images, spec, keep=keep, labels=LABELS, dropout=dropout, hooks=loop.Hooks())


class Probe(torch.nn.Module):
    """Stands for a class-conditional `UNet2DModel` of three classes and a null class."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.config = {"num_class_embeds": 4}
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(
        self, x: Tensor, index: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        self.seen.append((x.detach().clone(), index, class_labels))
        return (self.scale * x,)


def test_the_network_is_shown_each_images_class_or_the_null_class() -> None:
    images, probe = bytes_images(16), Probe()
    keep = LABELS != 1
    spec = dataclasses.replace(SPEC, steps=40)
    fit(probe, images, spec, keep=keep)
    stream = Stream(16, 8, 50, (1, 8, 8), seed=1, keep=keep)
    for step, (_, index, shown) in enumerate(probe.seen):
        batch, dropped = stream.at(step), stream.unlabelled(step, 0.25)
        assert torch.equal(index, batch.t - 1)
        expected = [3 if gone else int(i) % 3 for i, gone in zip(batch.indices, dropped, strict=True)]
        assert shown.tolist() == expected
    assert set(torch.cat([labels for *_, labels in probe.seen]).tolist()) == {0, 2, 3}


def test_classes_move_no_other_draw() -> None:
    """The noisy images and timesteps of a class-conditional run are those of an unconditional one."""
    images, shown = bytes_images(16), []

    class Plain(Probe):
        def __init__(self) -> None:
            super().__init__()
            self.config = {}

        def forward(self, x: Tensor, index: Tensor, return_dict: bool = True) -> tuple[Tensor]:  # type: ignore[override]
            shown.append((x.detach().clone(), index))
            return (self.scale * x,)

    probe = Probe()
    fit(probe, images, SPEC)
    train(UNetDenoiser(Plain(), make_schedule()), images, SPEC, hooks=loop.Hooks())
    for (x, t, _), (plain_x, plain_t) in zip(probe.seen, shown, strict=True):
        assert torch.equal(x, plain_x)
        assert torch.equal(t, plain_t)


def test_classes_that_are_never_shown_keep_their_embedding() -> None:
    images, keep = bytes_images(16), LABELS != 1
    unet = make_unet(num_class_embeds=4)
    before = unet.class_embedding.weight.detach().clone()
    spec = dataclasses.replace(SPEC, steps=12)
    weights = fit(unet, images, spec, keep=keep)
    after = weights["class_embedding.weight"]
    changed = [not torch.equal(one, two) for one, two in zip(before, after, strict=True)]
    assert changed == [True, False, True, True]


def test_a_trained_class_embedding_tells_the_classes_apart() -> None:
    """Shown nothing but noise, the network answers with the brightness of the class it is told."""
    labels = torch.arange(16) % 2
    images = torch.where(labels.view(-1, 1, 1, 1) == 1, 220, 30).expand(16, 1, 8, 8).to(torch.uint8)
    schedule, unet = make_schedule(prediction="sample"), make_unet(num_class_embeds=3)
    spec = TrainSpec(steps=60, batch_size=8, lr=5e-3, warmup_steps=5, ema_decay=0.0)
    unet.load_state_dict(
        train(UNetDenoiser(unet, schedule), images, spec, labels=labels, dropout=0.1, hooks=loop.Hooks())
    )
    denoiser = UNetDenoiser(unet.eval(), schedule)
    noise = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        told = denoiser.predict(noise, torch.full((16,), schedule.T), labels).mean((1, 2, 3))
    assert float(told[labels == 1].min()) > float(told[labels == 0].max()) + 0.2


def test_dropout_needs_a_null_class() -> None:
    denoiser = UNetDenoiser(make_unet(num_class_embeds=3, null_class=False), make_schedule())
    with pytest.raises(ValueError, match="null condition"):
        train(denoiser, bytes_images(16), SPEC, labels=LABELS, dropout=0.1, hooks=loop.Hooks())
    train(denoiser, bytes_images(16), SPEC, labels=LABELS, hooks=loop.Hooks())
