"""Common random numbers: the noise of a cell is a pure function of what it is drawn for."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guda_cli.diffusion import elbo, grid
from guda_cli.diffusion.noise import QueryNoise, generator, seed_of
from tests.diffusion.tiny import FunctionDenoiser, float_images, make_schedule

SHAPE = (3, 8, 8)
CELL = ("digest", 7, 1)


def draw(cells: list[tuple[str, int, int]], seed: int = 0) -> Tensor:
    return QueryNoise(seed).fill(torch.full((len(cells), *SHAPE), torch.nan), cells)


def test_seed_is_the_head_of_a_sha256() -> None:
    head = hashlib.sha256(b"a|1|2").hexdigest()[:16]
    assert seed_of("a", 1, 2) == int(head, 16) >> 1
    assert 0 <= seed_of("x") < 2**63


def test_noise_depends_on_every_part_of_the_cell() -> None:
    others = [("other", 7, 1), ("digest", 8, 1), ("digest", 7, 0)]
    noises = [draw([CELL])[0], *draw(others), draw([CELL], seed=1)[0]]
    assert torch.isfinite(torch.stack(noises)).all()
    for i, one in enumerate(noises):
        for two in noises[i + 1 :]:
            assert not torch.isclose(one, two).all()
            assert abs(float((one * two).mean())) < 0.5  # nor nearly the same
    assert torch.equal(draw([CELL]), draw([CELL]))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=9)
)
@settings(max_examples=25, deadline=None)
def test_noise_does_not_depend_on_companions_or_order(cells: list[tuple[str, int, int]]) -> None:
    together = draw(cells)
    for cell, row in zip(cells, together, strict=True):
        assert torch.equal(row, draw([cell])[0])
    assert torch.equal(draw(cells[::-1]), together.flip(0))


def test_noise_does_not_read_or_move_the_global_generator() -> None:
    torch.manual_seed(1)
    first, state = draw([CELL]), torch.get_rng_state()
    torch.manual_seed(2)
    torch.randn(5)
    assert torch.equal(draw([CELL]), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        torch.randn(4, generator=generator("a", 1)), torch.randn(4, generator=generator("a", 1))
    )


def test_noise_is_unit_normal() -> None:
    sample = draw([("d", t, k) for t in range(1, 51) for k in range(4)]).double()
    n = sample.numel()
    assert abs(float(sample.mean())) < 4 / n**0.5
    assert float(sample.var()) == pytest.approx(1.0, abs=4 * (2 / n) ** 0.5)
    assert float((sample**4).mean()) == pytest.approx(3.0, abs=4 * (96 / n) ** 0.5)


def test_a_mirror_is_the_noise_with_its_sign_changed() -> None:
    first, mirror, other = draw([("d", 5, 3), ("d", 5, -4), ("d", 5, -5)])
    assert torch.equal(mirror, -first)
    assert torch.equal(other, -draw([("d", 5, 4)])[0])


def test_every_model_sees_the_same_bits() -> None:
    """What two different models are shown, in batches of different sizes, is equal bit for bit."""
    schedule = make_schedule("linear", 30)
    x0 = float_images(3)
    strata = grid.build(grid.spec("strata", 5, 2, 0), 30)
    seen: list[list[Tensor]] = []
    for scale, batch_size in ((0.0, 4), (1.5, 30)):
        shown: list[Tensor] = []

        def predict(x_t: Tensor, t: Tensor, into: list[Tensor] = shown, scale: float = scale) -> Tensor:
            into.append(x_t.clone())
            return scale * x_t

        elbo.image_terms(
            FunctionDenoiser(schedule, predict), x0, ["a", "b", "c"], strata, seed=1, batch_size=batch_size
        )
        seen.append(shown)
    assert len(seen[0]) == 8
    assert len(seen[1]) == 1
    assert torch.equal(torch.cat(seen[0]), torch.cat(seen[1]))
