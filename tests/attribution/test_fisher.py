"""The Fisher diagonal against one gradient at a time, and its damping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from guda_cli.attribution.rivals import cell_losses as cl
from guda_cli.attribution.rivals.fisher import Fisher, diagonal_fisher, sample_bytes
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork
from tests.attribution.tiny_networks import PixelwiseDenoiser, T, bits, learnt, random_samples
from tests.diffusion.tiny import make_denoiser


def one_at_a_time(
    network: FunctionalNetwork, names: list[str], samples: Samples, at: cl.Grid
) -> dict[str, torch.Tensor]:
    parameters = dict(network.network.named_parameters())
    total = {name: torch.zeros_like(parameters[name], dtype=torch.float64) for name in names}
    share = np.tile(at.widths / at.widths.sum() / len(at.timesteps), len(at.timesteps) * len(samples))
    network.network.eval()
    for rows in cl.batches(network, samples, at, seed=0, batch_size=1):
        loss = cl.row_losses(network, {}, rows)[0]
        parts = torch.autograd.grad(loss, [parameters[name] for name in names])
        for name, part in zip(names, parts, strict=True):
            total[name] += share[rows.where.start] / len(samples) * part.detach().double() ** 2
    return total


@pytest.mark.parametrize("kind", ["plain", "attention", "classes"])
def test_against_single_gradients(kind: str) -> None:
    classes = {"num_class_embeds": 4} if kind == "classes" else {}
    network = FunctionalNetwork(make_denoiser(add_attention=kind == "attention", **classes))
    samples, at = random_samples(3), cl.levels(T, 3, 2, 0)
    if classes:
        samples = replace(samples, labels=torch.tensor([2, 0, 2]))
    parts = ("mid_block", "conv_out", "class_embedding")
    weights = network.weights(lambda name: name.startswith(parts))
    before = bits(network)
    found = diagonal_fisher(network, weights, samples, at, seed=0)
    assert found.forwards == 3 * 3 * 6
    assert bits(network) == before
    expected = one_at_a_time(network, list(weights), samples, at)
    assert found.diagonal.keys() == expected.keys()
    largest = max(float(value.max()) for value in expected.values())
    for name, value in expected.items():  # a key's bias has no gradient but rounding
        np.testing.assert_allclose(found.diagonal[name], value, rtol=1e-3, atol=1e-7 * largest, err_msg=name)
    assert largest > 0.0
    if classes:
        rows = found.diagonal["class_embedding.weight"].abs().sum(1)
        assert [bool(row > 0) for row in rows] == [True, False, True, False]


def test_closed_form_of_a_linear_network() -> None:
    """dL/da_p = 2 (a_p x_p - e_p) x_p / P."""
    network, samples, at = (
        FunctionalNetwork(PixelwiseDenoiser()),
        random_samples(4, (1, 2, 2)),
        cl.levels(T, 5, 2, 1),
    )
    found = diagonal_fisher(network, network.weights(), samples, at, seed=0)
    rows = next(cl.batches(network, samples, at, seed=0, batch_size=40))
    slope = 2.0 * (network.network.gain.detach() * rows.x_t - rows.target) * rows.x_t / 4
    np.testing.assert_allclose(found.diagonal["gain"], slope.square().mean(0), rtol=1e-6)


def test_memory_bound_and_order_change_nothing() -> None:
    network, samples, at = learnt(), random_samples(4), cl.levels(T, 2, 1, 0)
    weights = network.weights(lambda name: name.startswith("conv_"))
    size = 4 * sum(value.numel() for value in weights.values())
    assert sample_bytes(weights) == size
    whole = diagonal_fisher(network, weights, samples, at, seed=0)
    parts = diagonal_fisher(network, weights, samples.rows([2, 0, 3, 1]), at, seed=0, budget=3 * size)
    for name, value in whole.diagonal.items():
        np.testing.assert_allclose(parts.diagonal[name], value, rtol=1e-4, atol=1e-9)


def test_damping_is_relative_to_the_mean_over_all_tensors() -> None:
    fisher = Fisher({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[9.0]])}, 0.0)  # mean 4
    damped = fisher.damped(0.5)
    assert damped["a"].tolist() == [3.0, 4.0]
    assert damped["b"].tolist() == [[11.0]]
    assert fisher.damped(0.0)["a"].tolist() == [1.0, 2.0]
    assert Fisher({"a": torch.zeros(2)}, 0.0).damped(0.1)["a"].tolist() == [1.0, 1.0]


def test_or_to_each_tensors_own_mean() -> None:
    """Means 1.5 and 9; the tensor that is all zero has the mean of all, 12 / 4 = 3."""
    fisher = Fisher({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[9.0]]), "c": torch.zeros(1)}, 0.0)
    damped = fisher.damped(0.5, by_layer=True)
    assert damped["a"].tolist() == [1.75, 2.75]
    assert damped["b"].tolist() == [[13.5]]
    assert damped["c"].tolist() == [1.5]
