"""unlearn-query: the step against exact retraining, its size, and what it may not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.attribution.rivals import cell_losses as cl
from guda_cli.attribution.rivals.fisher import Fisher, diagonal_fisher
from guda_cli.attribution.rivals.unlearn_query import (
    AscentSpec,
    ascend,
    query_gradient,
    scale_for,
    score_query,
    unlearning_step,
)
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.training.loop import Diverged
from tests.attribution.tiny_networks import (
    Counting,
    PixelwiseDenoiser,
    T,
    bits,
    kinds,
    learnt,
    random_samples,
)

AT = cl.levels(T, 5, 2, 0)  # strata of equal width, so that plain means are means over t
SPEC = AscentSpec()


def moments(network: FunctionalNetwork, samples: Samples) -> tuple[Tensor, Tensor]:
    """Each image's sums over cells of x^2 and x e: the training loss is sum_p a^2 xx - 2 a xe + const."""
    rows = next(cl.batches(network, samples, AT, seed=0, batch_size=len(samples) * AT.rows))
    x, e = rows.x_t.double(), rows.target.double()
    shape = (len(samples), AT.rows, *x.shape[1:])
    return (x * x).view(shape).mean(1), (x * e).view(shape).mean(1)


def retrained(count: int) -> tuple[FunctionalNetwork, Samples, Tensor, Tensor, Tensor]:
    """The minimiser over `count` images, the one without image 0, and the Hessian of each mean loss / P."""
    network, samples = FunctionalNetwork(PixelwiseDenoiser()), random_samples(count, (1, 2, 2))
    xx, xe = moments(network, samples)
    with torch.no_grad():
        network.network.gain.copy_(xe.sum(0) / xx.sum(0))
    without = xe[1:].sum(0) / xx[1:].sum(0)
    return network, samples, without, 2 * xx.mean(0) / 4, 2 * xx[0] / 4


def one_over_n(network: FunctionalNetwork, samples: Samples, fisher: Fisher) -> AscentSpec:
    """The rise of image 0 that a / N = 1 / N gives; the loss is quadratic: aiming at it finds the step."""
    weights, query = network.weights(), samples.rows([0])
    before, gradient = query_gradient(network, weights, query, AT, seed=0, batch_size=64)
    direction = {name: value / fisher.damped(0.0)[name] for name, value in gradient.items()}
    moved = ascend(weights, direction, 1 / len(samples))
    after = cl.mean_over_cells(cl.cell_losses(network, moved, query, AT, seed=0, batch_size=64), AT)
    return AscentSpec(rise=float(after[0]) / before - 1.0, damping=0.0, tolerance=1e-9)


def step(network: FunctionalNetwork, samples: Samples, curvature: Tensor) -> Tensor:
    fisher = Fisher({"gain": curvature}, 0.0)
    spec = one_over_n(network, samples, fisher)
    found = unlearning_step(
        network, network.weights(), samples.rows([0]), fisher, AT, spec, seed=0, batch_size=100
    )
    return found.weights["gain"]


@pytest.mark.parametrize("count", [20, 80])
def test_one_step_is_retraining_without_the_query_up_to_one_over_n(count: int) -> None:
    network, samples, without, hessian, _ = retrained(count)
    moved = without - network.network.gain.detach()
    error = step(network, samples, hessian) - without
    assert float(moved.norm()) > 1e-3 / count
    assert float(error.norm() / moved.norm()) < 4 / count


def test_one_step_with_the_curvature_of_the_rest_is_exactly_retraining() -> None:
    """grad of the mean over the rest is quadratic: a Newton step from anywhere ends at its minimum."""
    network, samples, without, hessian, own = retrained(10)
    np.testing.assert_allclose(step(network, samples, hessian - own / 10), without, rtol=1e-6)


def test_scores_are_the_rise_of_each_image_under_the_retrained_network() -> None:
    network, samples, without, hessian, own = retrained(10)
    fisher = Fisher({"gain": hessian - own / 10}, 0.0)
    base = cl.cell_losses(network, {}, samples, AT, seed=0, batch_size=64)
    spec = one_over_n(network, samples, fisher)
    found = score_query(
        network,
        network.weights(),
        samples.rows([0]),
        samples,
        base,
        fisher,
        AT,
        AT,
        spec,
        seed=0,
        batch_size=64,
    )
    xx, xe = moments(network, samples)
    gain = network.network.gain.detach()
    rise = (without**2 - gain**2) * xx - 2 * (without - gain) * xe
    np.testing.assert_allclose(found.scores, rise.flatten(1).mean(1), rtol=1e-4, atol=1e-9)
    assert found.scores.argmax() == 0


def test_gradient_is_the_derivative_of_the_mean_loss() -> None:
    network, samples, *_ = retrained(6)
    weights = network.weights()
    loss, gradient = query_gradient(network, weights, samples.rows([2]), AT, seed=0, batch_size=5)
    nudge = 1e-6

    def at(gain: Tensor) -> float:
        values = cl.cell_losses(network, {"gain": gain}, samples.rows([2]), AT, seed=0, batch_size=5)
        return float(cl.mean_over_cells(values, AT)[0])

    assert loss == pytest.approx(at(weights["gain"]), rel=1e-6)
    for place in range(4):
        unit = torch.zeros(4).double().index_fill_(0, torch.tensor(place), nudge).view(1, 2, 2)
        slope = (at(weights["gain"] + unit) - at(weights["gain"] - unit)) / (2 * nudge)
        assert float(gradient["gain"].flatten()[place]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "curve",
    [
        lambda s: 2.0 * s,
        lambda s: 2.0 * s + 500.0 * s * s,
        lambda s: 2.0 * s * math.exp(min(40.0 * s, 700.0)),
        lambda s: 2.0 * s if s < 0.7 else math.nan,
        lambda s: 3.0 * (1.0 - math.exp(-2.0 * s / 3.0)),
        lambda s: 2.0 * s - 1.2 * s * s + 0.9 * s**3,
    ],
    ids=["line", "parabola", "explosion", "not a number", "saturation", "wave"],
)
@pytest.mark.parametrize("rise", [0.01, 1.0])
def test_the_step_is_sized_by_the_querys_own_rise(curve: Callable[[float], float], rise: float) -> None:
    tried: list[float] = []

    def rise_at(s: float) -> float:
        tried.append(s)
        return curve(s)

    scale, found, evaluations = scale_for(rise_at, 2.0, AscentSpec(rise=rise))
    assert found == curve(scale)
    assert abs(found - rise) <= 0.1 * rise
    assert evaluations == len(tried) <= 10


def test_an_unreachable_rise_gives_the_nearest_that_was_seen() -> None:
    scale, rise, evaluations = scale_for(lambda s: min(s, 0.3), 1.0, AscentSpec(rise=1.0))
    assert (rise, evaluations) == (0.3, 10)
    assert scale >= 0.3


POOL = kinds()
POOL_AT = cl.levels(T, 4, 1, 0)


def setting(network: FunctionalNetwork) -> tuple[dict[str, Tensor], Fisher, np.ndarray]:
    weights = network.weights(lambda name: not name.endswith("bias"))
    fisher = diagonal_fisher(network, weights, POOL.rows(range(8)), POOL_AT, seed=0)
    return weights, fisher, cl.cell_losses(network, weights, POOL, POOL_AT, seed=0, batch_size=64)


def scored(
    network: FunctionalNetwork, row: int, batch_size: int = 64, pool: list[int] | None = None
) -> cl.QueryScores:
    weights, fisher, base = setting(network)
    order = pool or list(range(len(POOL)))
    return score_query(
        network, weights, POOL.rows([row]), POOL.rows(order), base[order], fisher, AT, POOL_AT, SPEC,
        seed=0, batch_size=batch_size,
    )  # fmt: skip


def test_images_of_the_querys_kind_are_forgotten_with_it() -> None:
    network = learnt()
    for row in (0, 1):
        found = scored(network, row)
        weights, fisher, _ = setting(network)
        taken = unlearning_step(network, weights, POOL.rows([row]), fisher, AT, SPEC, seed=0, batch_size=64)
        assert abs(taken.rise - SPEC.rise) <= 0.1 * SPEC.rise
        same = np.arange(len(POOL)) % 2 == row
        assert found.scores[same].mean() > 1.3 * found.scores[~same].mean()


def test_queries_pool_order_and_batch_size_play_no_part() -> None:
    network = learnt()
    before = bits(network)
    first = scored(network, 3)
    scored(network, 8)
    again = scored(network, 3)
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.forwards == first.forwards
    order = np.random.default_rng(0).permutation(len(POOL)).tolist()
    spread = float(np.ptp(first.scores))
    np.testing.assert_allclose(scored(network, 3, pool=order).scores, first.scores[order], atol=2e-3 * spread)
    np.testing.assert_allclose(scored(network, 3, batch_size=5).scores, first.scores, atol=2e-3 * spread)
    assert bits(network) == before


def test_cost_is_what_was_spent() -> None:
    network = learnt(Counting)
    weights, fisher, base = setting(network)
    network.denoiser.spent = 0.0
    found = score_query(
        network, weights, POOL.rows([0]), POOL, base, fisher, AT, POOL_AT, SPEC, seed=0, batch_size=64
    )
    assert found.forwards == network.denoiser.spent > 0


def test_only_the_subset_moves_and_the_network_not_at_all() -> None:
    network = learnt()
    before = bits(network)
    weights = network.weights(lambda name: name.startswith("conv_out"))
    fisher = diagonal_fisher(network, weights, POOL.rows([0, 1]), POOL_AT, seed=0)
    found = unlearning_step(network, weights, POOL.rows([0]), fisher, AT, SPEC, seed=0, batch_size=64)
    assert set(found.weights) == {"conv_out.weight", "conv_out.bias"}
    assert not torch.equal(found.weights["conv_out.weight"], weights["conv_out.weight"])
    assert bits(network) == before


def test_a_query_without_gradient_stays_put_and_scores_nothing() -> None:
    network, samples = FunctionalNetwork(PixelwiseDenoiser()), random_samples(3, (1, 2, 2))
    unused = torch.nn.Parameter(torch.ones(2))
    network.network.register_parameter("unused", unused)
    only = network.weights(lambda name: name == "unused")
    base = cl.cell_losses(network, only, samples, AT, seed=0, batch_size=64)
    found = score_query(
        network, only, samples.rows([0]), samples, base, Fisher({"unused": torch.ones(2)}, 0.0), AT, AT, SPEC,
        seed=0, batch_size=64,
    )  # fmt: skip
    assert found.scores.tolist() == [0.0, 0.0, 0.0]
    assert found.forwards == 3 * AT.rows + 3 * AT.rows  # the gradient and the losses after: no step was tried


def test_weights_that_are_not_finite_are_refused() -> None:
    network = learnt()
    weights, fisher, base = setting(network)
    broken = {name: value * math.nan for name, value in weights.items()}
    with pytest.raises(Diverged):
        score_query(
            network, broken, POOL.rows([0]), POOL, base, fisher, AT, POOL_AT, SPEC, seed=0, batch_size=64
        )
