"""How anchor styles and descriptors are drawn: by hand, and whatever the numbers are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guda_cli.diffusion.noise import generator
from guda_cli.unlearning.operators.anchor import awss, draw_descriptors, draw_styles, mean_embeddings


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draws(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator("test.anchors"), dtype=torch.float64)


def test_mean_embeddings_by_hand() -> None:
    table = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    found = mean_embeddings(table, [[0, 1], [], [2], [0, 0, 1]])
    half = math.sqrt(0.5)
    two, one = 2 / math.sqrt(5.0), 1 / math.sqrt(5.0)
    expected = torch.tensor([[half, half], [0.0, 0.0], [half, half], [two, one]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_the_number_of_descriptors_makes_no_style_nearer() -> None:
    """Two descriptors at a right angle have a mean of length 0.71; a prompt between them is nearer to it."""
    e = mean_embeddings(torch.tensor([[1.0, 1.0]]), [[0]])
    p = mean_embeddings(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.8]]), [[0, 1], [2]])
    pi = awss(e, p, torch.tensor([True, True]), 2.0, 0.0)[0]
    cosine = 1.8 / math.sqrt(2.0 * 1.64)
    assert float(pi[0] / pi[1]) == pytest.approx(math.exp(2.0 * (1.0 - cosine)))
    assert pi[0] > pi[1]


def test_awss_by_hand() -> None:
    e = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    retained = torch.tensor([True, True, False])
    near = math.exp(2.0) / (math.exp(2.0) + 1.0)
    high, low = 0.7 * near + 0.15, 0.7 * (1.0 - near) + 0.15
    expected = torch.tensor([[high, low, 0.0], [low, high, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(awss(e, p, retained, 2.0, 0.3), expected)
    assert high == pytest.approx(0.766558, abs=1e-6)


def numbers(largest: float) -> st.SearchStrategy[float]:
    return st.floats(0.0, largest, allow_subnormal=False)  # the tests run without denormals


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    size = draw(st.integers(1, 6))
    retained = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    seed = draw(st.integers(0, 99))
    return normal(3, 4, seed=seed), normal(size, 4, seed=seed + 100), torch.tensor(retained)


@settings(max_examples=60, deadline=None)
@given(cases(), numbers(1e5), numbers(1.0))
def test_probabilities_sum_to_one_over_the_retained(
    case: tuple[Tensor, Tensor, Tensor], beta: float, eta: float
) -> None:
    e, p, retained = case
    pi = awss(e, p, retained, beta, eta)
    assert pi.dtype == torch.float64
    torch.testing.assert_close(pi.sum(1), torch.ones(3, dtype=torch.float64))
    assert float(pi[:, ~retained].sum()) == 0.0
    assert float(pi[:, retained].min()) >= eta / int(retained.sum()) * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(cases(), numbers(50.0), numbers(1.0))
def test_without_preference_it_is_uniform(
    case: tuple[Tensor, Tensor, Tensor], beta: float, eta: float
) -> None:
    e, p, retained = case
    even = (retained / retained.sum()).double().expand(3, -1)
    torch.testing.assert_close(awss(e, p, retained, 0.0, eta), even)
    torch.testing.assert_close(awss(e, p, retained, beta, 1.0), even)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 99))
def test_the_order_of_styles_and_prompts_does_not_matter(
    case: tuple[Tensor, Tensor, Tensor], seed: int
) -> None:
    e, p, retained = case
    g = torch.Generator().manual_seed(seed)
    styles, rows = torch.randperm(len(p), generator=g), torch.randperm(3, generator=g)
    found = awss(e[rows], p[styles], retained[styles], 2.0, 0.3)
    torch.testing.assert_close(found, awss(e, p, retained, 2.0, 0.3)[rows][:, styles])


def test_nothing_retained_is_refused() -> None:
    with pytest.raises(ValueError, match="retained"):
        awss(normal(1, 2), normal(3, 2), torch.zeros(3, dtype=torch.bool), 2.0, 0.3)


def test_styles_come_as_often_as_their_probabilities() -> None:
    pi, count = torch.tensor([0.55, 0.3, 0.15, 0.0], dtype=torch.float64), 20_000
    style = draw_styles(pi.expand(count, -1), draws(count, 4))
    found = torch.bincount(style, minlength=4) / count
    assert float((found - pi).abs().max()) < 4 * math.sqrt(0.25 / count)
    assert found[3] == 0.0


def test_only_entries_that_drew_a_style_notice_that_it_is_gone() -> None:
    pi, u = torch.softmax(normal(500, 5), dim=1), draws(500, 5)
    before = draw_styles(pi, u)
    without = pi.clone()
    without[:, 2] = 0.0
    after = draw_styles(without / without.sum(1, keepdim=True), u)
    assert torch.equal(after[before != 2], before[before != 2])
    assert bool((before == 2).any())
    assert not bool((after == 2).any())


def test_descriptors_are_different_ones_of_the_style() -> None:
    counts = torch.tensor([5, 3, 2, 1]).repeat(3000)
    chosen = draw_descriptors(counts, draws(len(counts), 5), 3)
    assert chosen.shape == (12_000, 3)
    for size in (5, 3, 2, 1):
        rows = chosen[counts == size]
        drawn = [[place for place in row if place >= 0] for row in rows.tolist()]
        assert all(len(row) == len(set(row)) == min(3, size) for row in drawn)
        share = torch.bincount(torch.tensor([place for row in drawn for place in row])) / len(rows)
        assert len(share) == size
        assert float((share - min(3, size) / size).abs().max()) < 0.05


def test_an_entrys_descriptors_depend_on_its_own_draws_alone() -> None:
    counts, u = torch.tensor([4, 2, 3]), draws(3, 4)
    whole = draw_descriptors(counts, u, 2)
    assert torch.equal(draw_descriptors(counts[1:], u[1:], 2), whole[1:])
