"""mucs: where ascent stops, what it leaves alone, and its score."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guda_cli.attribution.rivals import cell_losses as cl
from guda_cli.attribution.rivals import mucs
from guda_cli.attribution.rivals.mucs import MucsSpec
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.errors import DataError
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.training.loop import Diverged
from guda_cli.training.stream import Stream
from tests.attribution.tiny_networks import Counting, PixelwiseDenoiser, T, bits, kinds, learnt, untrained
from tests.diffusion.tiny import make_unet

POOL = kinds()
# 95 % of the null, row by row, takes this network hundreds of steps
SPEC = MucsSpec(max_steps=60, lr=5e-3, retain_batch=16, forget_batch=16, bound=0.6)
AT = cl.levels(T, 5, 2, 0, SPEC.lowest)


@cache
def null() -> float:
    return float(mucs.null_losses(untrained(), POOL.rows([0]), SPEC)[0])


def loss(network: FunctionalNetwork, weights: dict[str, Tensor], rows: list[int]) -> float:
    values = cl.cell_losses(network, weights, POOL.rows(rows), AT, seed=99, batch_size=64)
    return float(cl.mean_over_cells(values, AT).mean())


def others(row: int) -> Samples:
    """The images of the other kind. (Retaining twelve near copies outweighs 0.2 of forgetting one.)"""
    return POOL.rows(range(1 - row % 2, len(POOL), 2))


def scored(
    network: FunctionalNetwork,
    row: int,
    spec: MucsSpec = SPEC,
    batch_size: int = 64,
    pool: list[int] | None = None,
) -> cl.QueryScores:
    weights = network.weights(mucs.movable)
    order = pool or list(range(len(POOL)))
    base = cl.cell_losses(network, weights, POOL, AT, seed=0, batch_size=64)[order]
    return mucs.score_query(
        network, weights, POOL.rows([row]), POOL.rows(order), base, others(row), null(), AT, spec,
        seed=0, batch_size=batch_size,
    )  # fmt: skip


def test_stops_at_the_bound_and_the_rest_is_kept() -> None:
    network, rest = learnt(), list(range(1, len(POOL), 2))
    weights = network.weights(mucs.movable)
    done = mucs.unlearn(network, weights, POOL.rows([0]), others(0), null(), SPEC)
    assert done.reached
    assert 0 < done.steps < SPEC.max_steps
    assert SPEC.bound * null() <= done.forget <= null()
    assert loss(network, done.weights, [0]) > 0.8 * null()  # on noise that unlearning never saw
    before, after = loss(network, {}, rest), loss(network, done.weights, rest)
    assert after - before < 0.3 * (null() - before)


def test_a_bound_already_met_moves_nothing() -> None:
    network = learnt()
    weights = network.weights(mucs.movable)
    done = mucs.unlearn(network, weights, POOL.rows([0]), POOL, 1e-6, SPEC)
    assert (done.steps, done.reached) == (0, True)
    assert all(torch.equal(done.weights[name], value) for name, value in weights.items())
    base = cl.cell_losses(network, {}, POOL, AT, seed=0, batch_size=64)
    found = mucs.score_query(
        network, weights, POOL.rows([0]), POOL, base, POOL, 1e-6, AT, SPEC, seed=0, batch_size=64
    )
    assert not found.scores.any()


def test_gives_up_after_the_last_step_and_says_so() -> None:
    network = learnt()
    done = mucs.unlearn(
        network,
        network.weights(mucs.movable),
        POOL.rows([0]),
        POOL,
        null(),
        replace(SPEC, lr=1e-7, max_steps=3),
    )
    assert (done.steps, done.reached) == (3, False)
    assert done.forget < SPEC.bound * null()


def test_the_first_step_descends_the_stated_loss() -> None:
    """Adam's first step is lr times the sign of the gradient of retain - 0.2 min(forget, null)."""
    network, spec = FunctionalNetwork(PixelwiseDenoiser()), replace(SPEC, max_steps=1, lr=1e-4, grad_clip=1e9)
    pool = Samples(POOL.images[:, :, :2, :2].contiguous(), POOL.digests)
    weights = {"gain": torch.tensor([[[0.9, -0.8], [0.7, 2.0]]]).double()}
    done = mucs.unlearn(network, weights, pool.rows([0]), pool, 1e9, spec)
    leaf = weights["gain"].clone().requires_grad_()
    forget = mucs.forget_rows(network, pool.rows([0]), spec, 0)
    stream = Stream(len(pool), spec.retain_batch, 35, (1, 2, 2), spec.seed)
    retain = mucs.retain_rows(network, pool, stream, 0)
    parts = [(leaf * rows.x_t - rows.target).square().mean() for rows in (retain, forget)]
    (parts[0] - 0.2 * parts[1]).backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(done.weights["gain"] - weights["gain"], -1e-4 * leaf.grad.sign(), rtol=1e-3)


def test_the_bound_is_each_rows() -> None:
    """Of the rows above the null no gradient comes, of those below it their whole share of the mean."""
    network, spec = FunctionalNetwork(PixelwiseDenoiser()), replace(SPEC, max_steps=1, lr=1e-4, grad_clip=1e9)
    pool = Samples(POOL.images[:, :, :2, :2].contiguous(), POOL.digests)
    weights = {"gain": torch.tensor([[[0.9, -0.8], [0.7, 2.0]]]).double()}
    rows = mucs.forget_rows(network, pool.rows([0]), spec, 0)
    losses = (weights["gain"] * rows.x_t - rows.target).square().flatten(1).mean(1)
    null = float(losses.median())
    assert null < float(losses.mean()), "else the bound of the mean would act too"
    spec = replace(spec, forget_weight=1e6, bound=2.0)  # the retain term decides no sign
    done = mucs.unlearn(network, weights, pool.rows([0]), pool, null, spec)
    leaf = weights["gain"].clone().requires_grad_()
    below = losses < null
    kept = (leaf * rows.x_t - rows.target).square().flatten(1).mean(1)[below].sum() / len(losses)
    kept.backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(done.weights["gain"] - weights["gain"], 1e-4 * leaf.grad.sign(), rtol=1e-3)
    assert done.forget <= null


def test_no_ascent_beyond_the_null() -> None:
    """Above the null only the retain term has a gradient."""
    network, spec = FunctionalNetwork(PixelwiseDenoiser()), replace(SPEC, max_steps=1, lr=1e-4, bound=1e9)
    pool = Samples(POOL.images[:, :, :2, :2].contiguous(), POOL.digests)
    weights = {"gain": torch.tensor([[[0.9, -0.8], [0.7, 2.0]]]).double()}
    above, without = (
        mucs.unlearn(network, weights, pool.rows([0]), pool, value, replace(spec, forget_weight=weight))
        for value, weight in ((1e-3, 0.2), (1e9, 0.0))
    )
    np.testing.assert_allclose(above.weights["gain"], without.weights["gain"], rtol=1e-12)


def test_attention_and_biases_stay() -> None:
    network = FunctionalNetwork(UNetDenoiser(make_unet(add_attention=True), learnt().schedule))
    names = set(network.weights())
    kept = {name for name in names if not mucs.movable(name)}
    assert {name for name in names if "attentions" in name} <= kept
    assert {name for name in names if name.endswith(".bias")} <= kept
    assert {name for name in kept if not name.endswith(".bias")} == {
        name for name in names if ".attentions." in name and name.endswith("weight")
    }
    assert mucs.movable("mid_block.resnets.0.conv1.weight")
    for name in (
        "down.0.attn1.to_q.weight",
        "x.attn2.to_out.0.weight",
        "block.attention.proj.weight",
        "conv.bias",
    ):
        assert not mucs.movable(name)


@pytest.mark.parametrize("lowest", [0.0, 0.3, 0.9])
def test_only_the_noisiest_levels_take_part(lowest: float) -> None:
    network, spec = FunctionalNetwork(PixelwiseDenoiser()), replace(SPEC, lowest=lowest, forget_batch=5)
    offset, pool = round(lowest * T), Samples(POOL.images[:, :, :2, :2].contiguous(), POOL.digests)
    stream = Stream(len(pool), 8, T - offset, (1, 2, 2), 0)
    forget, retain = set(), set()
    for step in range(150):
        t = mucs.forget_rows(network, pool.rows([0]), spec, step).t
        assert torch.equal(t.sort().values, t)
        forget |= set(t.tolist())
        retain |= set(mucs.retain_rows(network, pool, stream, step).t.tolist())
    assert forget == retain == set(range(offset + 1, T + 1))


def test_null_is_the_loss_of_a_network_that_knows_nothing() -> None:
    """A network that says zero pays the mean square of the noise; the untrained one about as much."""
    network = FunctionalNetwork(PixelwiseDenoiser())
    with torch.no_grad():
        network.network.gain.zero_()
    pool = Samples(POOL.images[:2, :, :2, :2].contiguous(), POOL.digests[:2])
    at = cl.levels(T, 7, 1, SPEC.seed, SPEC.lowest)  # 35 levels: strata of equal width
    found = mucs.null_losses(network, pool, SPEC, n=7)
    for value, digest in zip(found, pool.digests, strict=True):
        jobs = [(digest, int(t), 0) for t in at.timesteps[0]]
        noise = QueryNoise(SPEC.seed).fill(torch.empty(7, 1, 2, 2), jobs)
        assert value == pytest.approx(float(noise.square().mean()), rel=1e-5)
    plain = cl.cell_losses(learnt(), {}, POOL.rows([0]), AT, seed=0, batch_size=64).mean()
    assert 0.7 < null() < 1.5
    assert plain < 0.5 * null()


@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 2), min_size=10, max_size=10))
def test_score_is_odd_and_between_minus_one_and_one(pairs: list[tuple[int, int]]) -> None:
    after, before = (np.array(side).reshape(1, 2, 5) / 1e4 for side in zip(*pairs, strict=True))
    score = mucs.relative_rise(after, before, AT)
    np.testing.assert_array_equal(mucs.relative_rise(before, after, AT), -score)
    assert abs(score[0]) <= 1.0
    assert not mucs.relative_rise(after, after, AT).any()


def test_score_by_hand() -> None:
    after, before = np.full((1, 2, 5), 0.4), np.full((1, 2, 5), 0.1)
    assert mucs.relative_rise(after, before, AT)[0] == pytest.approx(0.3 / 0.501)


def test_images_of_the_querys_kind_are_forgotten_with_it() -> None:
    network = learnt()
    for row in (0, 1):
        found = scored(network, row)
        assert found.forwards - len(POOL) * AT.rows < 3 * 32 * SPEC.max_steps  # it ended at the bound
        assert (np.abs(found.scores) <= 1.0).all()
        same = np.arange(len(POOL)) % 2 == row
        assert found.scores[same].mean() > found.scores[~same].mean() + 0.05


def test_queries_pool_order_and_batch_size_play_no_part() -> None:
    network = learnt()
    network.network.train()
    before, short = bits(network), replace(SPEC, max_steps=6)
    first = scored(network, 3, short)
    scored(network, 8, short)
    again = scored(network, 3, short)
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.forwards == first.forwards
    order = np.random.default_rng(0).permutation(len(POOL)).tolist()
    np.testing.assert_allclose(scored(network, 3, short, pool=order).scores, first.scores[order], atol=1e-3)
    np.testing.assert_allclose(scored(network, 3, short, batch_size=5).scores, first.scores, atol=1e-3)
    assert bits(network) == before
    assert all(module.training for module in network.network.modules())


def test_cost_is_what_was_spent() -> None:
    network = learnt(Counting)
    weights = network.weights(mucs.movable)
    base = cl.cell_losses(network, weights, POOL, AT, seed=0, batch_size=64)
    for steps, reached in ((2, False), (SPEC.max_steps, True)):
        spec = replace(SPEC, max_steps=steps)
        assert mucs.unlearn(network, weights, POOL.rows([0]), others(0), null(), spec).reached == reached
        network.denoiser.spent = 0.0
        found = mucs.score_query(
            network, weights, POOL.rows([0]), POOL, base, others(0), null(), AT, spec, seed=0, batch_size=64
        )
        unused = 2.0 * 32 * reached  # the look that finds the bound is never differentiated
        assert found.forwards == network.denoiser.spent - unused > 0


def test_a_rate_too_high_is_said_and_the_network_is_as_before() -> None:
    network = learnt()
    before = bits(network)
    with pytest.raises(Diverged, match="unlearning a query"):
        mucs.unlearn(
            network, network.weights(mucs.movable), POOL.rows([0]), POOL, 1e30, replace(SPEC, lr=1e20)
        )
    assert bits(network) == before


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_null_that_bounds_nothing_is_refused(value: float) -> None:
    network = learnt()
    weights = network.weights(mucs.movable)
    base = np.zeros((len(POOL), 2, 5))
    with pytest.raises(DataError, match="null"):
        mucs.score_query(
            network, weights, POOL.rows([0]), POOL, base, POOL, value, AT, SPEC, seed=0, batch_size=64
        )
