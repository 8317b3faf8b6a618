"""Batches made in a thread ahead of their use: the same batches, errors and modes, and noise that is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.diffusion import elbo, grid
from guda_cli.diffusion.ahead import ahead
from guda_cli.diffusion.cells import Kept, Samples, batches, cells
from guda_cli.diffusion.denoiser import at, coefficients, level
from guda_cli.diffusion.noise import QueryNoise
from tests.diffusion.tiny import FunctionDenoiser, float_images, make_denoiser, make_schedule, wavy

CPU = torch.device("cpu")
GRID = grid.build(grid.spec("strata:even", 5, 2, 1), 50)


class Numbered:
    """A batch with a number, which says in which thread and mode it was made."""

    def __init__(self, number: int) -> None:
        self.number, self.tensors = number, [torch.zeros(1)]
        self.thread = threading.current_thread()

    @property
    def value(self) -> Tensor:
        return self.tensors[0]


def numbered(count: int, made: list[int], *, failing: int | None = None) -> Iterator[Numbered]:
    for number in range(count):
        if number == failing:
            raise ValueError("batch 2 cannot be made")
        made.append(number)
        yield Numbered(number)


def test_order_and_thread() -> None:
    found = list(ahead(numbered(5, []), CPU))
    assert [one.number for one in found] == [0, 1, 2, 3, 4]
    assert {one.thread for one in found} != {threading.current_thread()}
    assert len({one.thread for one in found}) == 1, "a generator belongs to one thread"


def test_the_next_is_begun_before_this_one_is_used() -> None:
    begun = threading.Event()

    def two() -> Iterator[Numbered]:
        yield Numbered(0)
        begun.set()
        yield Numbered(1)

    coming = ahead(two(), CPU)
    next(coming)
    assert begun.wait(10)
    assert next(coming).number == 1


def test_errors_come_where_they_would_have_come() -> None:
    coming = ahead(numbered(5, [], failing=2), CPU)
    assert [next(coming).number, next(coming).number] == [0, 1]
    with pytest.raises(ValueError, match="batch 2"):
        next(coming)


def test_who_stops_early_leaves_no_thread() -> None:
    made: list[int] = []
    before = threading.active_count()
    coming = ahead(numbered(100, made), CPU)
    next(coming)
    coming.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(made) <= 3


def test_tensors_are_made_in_the_mode_of_who_asks() -> None:
    with torch.inference_mode():
        [one] = ahead(numbered(1, []), CPU)
        assert one.value.is_inference()
    [one] = ahead(numbered(1, []), CPU)
    assert not one.value.is_inference()


def test_batches_of_scoring_are_the_same_ahead() -> None:
    denoiser = make_denoiser()
    samples = Samples(float_images(3), ("a", "b", "c"))
    jobs = cells(samples.digests, GRID.timesteps, GRID.numbers)
    plain = list(batches(denoiser, samples, jobs, seed=1, batch_size=7))
    coming = ahead(batches(denoiser, samples, jobs, seed=1, batch_size=7), CPU)
    for here, there in zip(plain, coming, strict=True):
        assert here.where == there.where
        assert all(torch.equal(a, b) for a, b in zip(here.tensors, there.tensors, strict=True))


class TestKept:
    def terms(self, kept: Kept | None, scale: float = 1.0) -> np.ndarray:
        denoiser = FunctionDenoiser(make_schedule(), lambda x, t: scale * wavy(x, t))
        digests = ["a", "b", "c"]
        return elbo.image_terms(
            denoiser, float_images(3), digests, GRID, seed=1, batch_size=7, kept=kept
        )  # fmt: skip

    def test_the_next_model_draws_nothing_and_sees_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh, kept = self.terms(None, 0.5), Kept()
        self.terms(kept)
        monkeypatch.delattr(QueryNoise, "fill")
        np.testing.assert_array_equal(self.terms(kept, 0.5), fresh)

    def test_other_seeds_and_packings_are_drawn(self) -> None:
        kept, denoiser = Kept(), make_denoiser()
        for seed, size in ((1, 7), (2, 7), (1, 8)):
            with_kept, without = (
                elbo.image_terms(
                    denoiser, float_images(2), ["a", "b"], GRID, seed=seed, batch_size=size, kept=k
                )
                for k in (kept, None)
            )  # fmt: skip
            np.testing.assert_array_equal(with_kept, without)

    def test_room_for_few(self) -> None:
        kept = Kept(most=3 * 400)
        for i in range(5):
            kept.put(i, torch.full((100,), float(i)))
            kept.get(0)  # used, so it stays
        assert [kept.get(i) is not None for i in range(5)] == [True, False, False, True, True]
        kept.put("large", torch.zeros(1000))
        assert kept.get("large") is None


def test_levels_are_the_schedules_and_serve_training_after_scoring() -> None:
    schedule, t = make_schedule(), torch.arange(1, 51)
    with torch.inference_mode():  # who asks first makes the table
        level(schedule, "signal", t)
    for name in ("signal", "sigma", "elbo_weight"):
        assert torch.equal(level(schedule, name, t), at(getattr(schedule, name), t))
    weight = torch.ones(50, 1, requires_grad=True)
    signal, sigma = coefficients(schedule, t, weight)
    (signal * weight * sigma).sum().backward()
    assert weight.grad is not None
