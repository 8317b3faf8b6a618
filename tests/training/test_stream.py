"""The training stream is a pure function of (seed, step)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guda_cli.training.stream import Batch, Stream, clean
from tests.diffusion.tiny import bytes_images

SHAPE = (1, 2, 2)


def indices(stream: Stream, count: int) -> list[int]:
    """The first `count` indices the stream yields."""
    steps = -(-count // stream.batch_size)
    return torch.cat([stream.at(step).indices for step in range(steps)])[:count].tolist()


def same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(getattr(one, f), getattr(two, f)) for f in ("indices", "t", "noise", "flip"))


def test_a_batch_depends_on_the_step_alone() -> None:
    stream = Stream(13, 5, 50, SHAPE, seed=3)
    forwards = [stream.at(step) for step in range(8)]
    torch.manual_seed(99)
    for step in (7, 0, 3, 3, 6, 1):
        assert same(Stream(13, 5, 50, SHAPE, seed=3).at(step), forwards[step])
        assert same(stream.at(step), forwards[step])
    assert not torch.equal(forwards[0].noise, forwards[1].noise)
    assert not same(Stream(13, 5, 50, SHAPE, seed=4).at(0), forwards[0])


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_every_image_comes_once_an_epoch(count: int, batch: int, seed: int) -> None:
    drawn = indices(Stream(count, batch, 10, (1, 1, 1), seed), 3 * count)
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_have_their_own_order() -> None:
    drawn = indices(Stream(30, 10, 10, SHAPE, 0), 60)
    assert drawn[:30] != drawn[30:]
    assert drawn[:30] != sorted(drawn[:30])


@given(
    keep=st.lists(st.booleans(), min_size=2, max_size=30).filter(any),
    batch=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=30, deadline=None)
def test_keep_yields_the_same_order_restricted(keep: list[bool], batch: int, seed: int) -> None:
    whole = indices(Stream(len(keep), batch, 10, (1, 1, 1), seed), 2 * len(keep))
    kept = indices(Stream(len(keep), batch, 10, (1, 1, 1), seed, keep=torch.tensor(keep)), 2 * sum(keep))
    assert kept == [i for i in whole if keep[i]]


def test_draws_cover_their_ranges() -> None:
    stream = Stream(10, 400, 7, SHAPE, 1)
    batch = stream.at(0)
    assert sorted(set(batch.t.tolist())) == list(range(1, 8))
    assert batch.noise.shape == (400, *SHAPE)
    assert batch.flip.dtype == torch.bool
    assert batch.flip.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert float(batch.noise.var()) == pytest.approx(1.0, abs=0.15)


def test_leaving_images_out_does_not_move_timesteps_or_noise() -> None:
    keep = torch.arange(12) % 3 > 0
    whole, part = Stream(12, 4, 20, SHAPE, 5), Stream(12, 4, 20, SHAPE, 5, keep=keep)
    for step in range(5):
        assert torch.equal(whole.at(step).t, part.at(step).t)
        assert torch.equal(whole.at(step).noise, part.at(step).noise)


def batch_of(rows: list[int], flip: list[bool]) -> Batch:
    none = torch.zeros(len(rows))
    return Batch(torch.tensor(rows), none, none, torch.tensor(flip))


def test_pixels_are_scaled_and_flipped() -> None:
    images: Tensor = torch.tensor([[[[0, 255]]], [[[255, 51]]]], dtype=torch.uint8)
    plain = clean(images, batch_of([1, 0], [True, False]), flip=False)
    torch.testing.assert_close(plain, torch.tensor([[[[1.0, -0.6]]], [[[-1.0, 1.0]]]]))
    flipped = clean(images, batch_of([1, 0], [True, False]), flip=True)
    torch.testing.assert_close(flipped, torch.tensor([[[[-0.6, 1.0]]], [[[-1.0, 1.0]]]]))


def test_flip_mirrors_left_and_right_only() -> None:
    images = bytes_images(2, (1, 3, 5))
    x = clean(images, batch_of([0, 1], [True, True]), flip=True)
    assert torch.equal(x, (images.float() / 127.5 - 1.0)[..., [4, 3, 2, 1, 0]])
