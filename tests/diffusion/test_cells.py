"""Noised cells: their order, their noise, what a batch holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guda_cli.diffusion.cells import Samples, batches, cells
from guda_cli.diffusion.denoiser import add_noise, training_target
from guda_cli.diffusion.noise import QueryNoise
from tests.diffusion.tiny import PREDICTIONS, bytes_images, make_denoiser, make_schedule

TIMES = np.array([[3, 20, 47], [9, 30, 41]])


def samples(count: int = 4, labels: torch.Tensor | None = None) -> Samples:
    return Samples(bytes_images(count), tuple(f"image-{i}" for i in range(count)), labels)


def test_both_orders_hold_every_cell_once() -> None:
    by_draw, by_time = cells(["a", "b"], TIMES), cells(["a", "b"], TIMES, by_time=True)
    assert [(c.t, c.draw) for c in by_draw[:6]] == [(3, 0), (20, 0), (47, 0), (9, 1), (30, 1), (41, 1)]
    assert [(c.t, c.draw) for c in by_time[:6]] == [(3, 0), (9, 1), (20, 0), (30, 1), (47, 0), (41, 1)]
    assert sorted(by_draw) == sorted(by_time)
    assert [(c.row, c.digest) for c in by_draw] == [(0, "a")] * 6 + [(1, "b")] * 6


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_batch_is_what_training_sees(prediction: str) -> None:
    denoiser = make_denoiser(make_schedule(prediction=prediction))
    given = samples(labels=torch.tensor([2, 0, 1, 2]))
    jobs = cells(given.digests, TIMES)
    for batch in batches(denoiser, given, jobs, seed=5, batch_size=7):
        part = jobs[batch.where]
        assert batch.rows.tolist() == [cell.row for cell in part]
        assert batch.t.tolist() == [cell.t for cell in part]
        assert given.labels is not None
        assert torch.equal(batch.cond, given.labels[batch.rows])
        x0 = given.images[batch.rows].float() / 127.5 - 1.0
        noise = QueryNoise(5).fill(torch.empty_like(x0), [(c.digest, c.t, c.draw) for c in part])
        assert torch.equal(batch.x_t, add_noise(denoiser.schedule, x0, noise, batch.t))
        assert torch.equal(batch.target, training_target(denoiser.schedule, x0, noise, batch.t))


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 4), st.integers(1, 30), st.booleans())
def test_a_cell_does_not_know_its_batch(order: list[int], kept: int, size: int, by_time: bool) -> None:
    denoiser, every = make_denoiser(make_schedule()), samples()

    def seen(of: Samples, size: int, by_time: bool) -> dict[tuple[str, int, int], torch.Tensor]:
        jobs = cells(of.digests, TIMES, by_time=by_time)
        done = list(batches(denoiser, of, jobs, seed=0, batch_size=size))
        assert [len(batch) for batch in done[:-1]] == [size] * (len(done) - 1)
        x_t = torch.cat([batch.x_t for batch in done])
        return {cell[1:]: row for cell, row in zip(jobs, x_t, strict=True)}

    whole = seen(every, 24, False)
    some = seen(every.rows(order[:kept]), size, by_time)
    assert len(some) == kept * TIMES.size
    assert all(torch.equal(row, whole[cell]) for cell, row in some.items())
