"""Losses at fixed cells: by hand, under other weights, in any packing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.attribution.rivals import cell_losses as cl
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.errors import DataError
from tests.attribution.tiny_networks import PixelwiseDenoiser, T, bits, learnt, random_samples
from tests.diffusion.tiny import make_schedule


def test_one_loss_by_hand() -> None:
    network, samples = FunctionalNetwork(PixelwiseDenoiser()), random_samples(2, (1, 2, 2))
    at = cl.levels(T, 4, 2, 0)
    found = cl.cell_losses(network, {}, samples, at, seed=5, batch_size=3)
    assert found.shape == (2, 2, 4)
    assert found.dtype == np.float64
    t = int(at.timesteps[1, 2])
    noise = QueryNoise(5).fill(torch.empty(1, 1, 2, 2), [(samples.digests[1], t, 1)])[0].double()
    abar = network.schedule.abar[t]
    x_t = abar**0.5 * (samples.images[1].double() / 127.5 - 1.0) + (1 - abar) ** 0.5 * noise
    expected = (network.network.gain.detach() * x_t - noise).square().mean()
    assert found[1, 1, 2] == pytest.approx(float(expected), rel=1e-5)


def test_other_weights_are_used_and_left_behind() -> None:
    network, samples = learnt(), random_samples(3)
    network.network.train()
    at, before = cl.levels(T, 3, 1, 0), bits(network)
    one = cl.cell_losses(network, {}, samples, at, seed=0, batch_size=4)
    weights = {name: value.clone() for name, value in network.weights().items()}
    same = cl.cell_losses(network, weights, samples, at, seed=0, batch_size=4)
    double = {name: 2.0 * value for name, value in weights.items()}
    other = cl.cell_losses(network, double, samples, at, seed=0, batch_size=4)
    np.testing.assert_array_equal(same, one)
    assert (np.abs(other / one - 1.0) > 1e-3).all()
    network.network.load_state_dict(double)
    np.testing.assert_array_equal(cl.cell_losses(network, {}, samples, at, seed=0, batch_size=4), other)
    network.network.load_state_dict(weights)
    assert bits(network) == before
    assert all(module.training for module in network.network.modules())


def test_companions_order_and_batch_size() -> None:
    network, samples, at = learnt(), random_samples(5), cl.levels(T, 3, 2, 0)
    whole = cl.cell_losses(network, {}, samples, at, seed=1, batch_size=7)
    order = [3, 0, 4, 1, 2]
    mixed = cl.cell_losses(network, {}, samples.rows(order), at, seed=1, batch_size=30)
    np.testing.assert_allclose(mixed, whole[order], rtol=1e-5)
    alone = cl.cell_losses(network, {}, samples.rows([2]), at, seed=1, batch_size=1)
    np.testing.assert_allclose(alone, whole[2:3], rtol=1e-5)


@pytest.mark.parametrize("lowest", [0.0, 0.3])
def test_levels_take_one_timestep_in_each_stratum_above_the_lowest(lowest: float) -> None:
    seen = set()
    for seed in range(40):
        at = cl.levels(50, 5, 2, seed, lowest)
        first = round(lowest * 50)
        edges = first + np.concatenate([[0], np.cumsum(at.widths)])
        assert edges[-1] == 50
        assert (at.timesteps > edges[:-1]).all()
        assert (at.timesteps <= edges[1:]).all()
        seen |= set(at.timesteps.ravel().tolist())
    assert seen == set(range(first + 1, 51))


def test_mean_over_cells_weighs_strata_by_their_width() -> None:
    at = cl.levels(10, 3, 2, 0)  # widths 3, 4, 3
    values = np.array([[[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]])
    assert cl.mean_over_cells(values, at)[0] == pytest.approx((2 * 3 + 3 * 4 + 4 * 3) / 10)
    by_cell = (cl.cell_weights(at).double().numpy() * values.ravel()).sum()
    assert by_cell == pytest.approx(3.0, rel=1e-6)


def test_an_empty_parameter_subset_is_refused() -> None:
    with pytest.raises(DataError, match="subset"):
        learnt().weights(lambda name: "attn2" in name)


class ByClass:
    """eps_theta = shift of the label."""

    def __init__(self) -> None:
        self.schedule, self.device = make_schedule(T=T), torch.device("cpu")
        self.network: torch.nn.Module = torch.nn.Embedding(3, 1)

    def predict(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        shift: Tensor = self.network(torch.zeros(len(t), dtype=torch.int64) if labels is None else labels)
        return x_t * 0.0 + shift.view(-1, 1, 1, 1)


def test_labels_reach_the_network_row_by_row() -> None:
    network = FunctionalNetwork(ByClass())
    weights = {"weight": torch.tensor([[0.0], [10.0], [100.0]])}
    plain = random_samples(3, (1, 2, 2))
    samples = Samples(plain.images, plain.digests, torch.tensor([2, 0, 1]))
    found = cl.cell_losses(network, weights, samples, cl.levels(T, 2, 1, 0), seed=0, batch_size=2)
    assert found.mean(axis=(1, 2)) == pytest.approx([10000, 1, 100], rel=0.9)
    assert (np.argsort(found.mean(axis=(1, 2))) == [1, 2, 0]).all()
    turned = cl.cell_losses(
        network, weights, samples.rows([1, 2, 0]), cl.levels(T, 2, 1, 0), seed=0, batch_size=2
    )
    np.testing.assert_allclose(turned, found[[1, 2, 0]], rtol=1e-6)
