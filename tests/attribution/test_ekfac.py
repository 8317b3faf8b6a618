"""EK-FAC against dense curvature, and a layer's gradients against autograd, one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guda_cli.attribution.rivals.ekfac import Ekfac, Found, _loss, curvature, eigenbases
from guda_cli.attribution.rivals.engine import Context, FullModel
from guda_cli.attribution.rivals.layer_gradients import Taps, layers_of, parameters_of
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.denoiser import Network
from guda_cli.errors import DataError
from tests.attribution.small_denoisers import SmallDenoiser, Wavy
from tests.attribution.tiny_networks import bits, kinds, learnt, random_samples
from tests.diffusion.tiny import make_denoiser, make_schedule

NOTHING = np.zeros((1, 1, 2, 2), dtype=np.uint8)
VALUES: Mapping[str, Any] = {
    "timesteps": 3, "draws": 2, "seed": 0, "projection": 10**6, "ekfac_damping": 0.1, "per_group": None,
}  # fmt: skip


class Flat(nn.Module):
    """A linear layer on the flattened image."""

    def __init__(self, pixels: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(pixels, pixels)
        draws = torch.Generator().manual_seed(3)
        for value in self.parameters():
            nn.init.normal_(value, std=0.5, generator=draws)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        out: Tensor = self.layer(x_t.flatten(1)).view_as(x_t)
        return out


def engine(denoiser: Network, pool: Samples, queries: Samples | None = None, **values: Any) -> Ekfac:
    model = FullModel(
        denoiser, 64, lambda: pool, lambda found: queries or pool, lambda: denoiser, lambda name: True, False
    )
    members = np.eye(len(pool), 2, dtype=bool)
    rows = np.arange(len(pool))
    return Ekfac(Context({**VALUES, **values}, NOTHING, members, rows, pool.digests, lambda: model))


def exact_passes(net: nn.Linear, x: Tensor, split: int) -> Iterator[Found]:
    """Residuals drawn from the model, all of them: a unit vector an output, each weighted as the loss is."""
    m = net.out_features
    for rows in x.split(split):
        for place in range(m):
            with Taps({"": net}) as taps:
                value = net(rows)[:, place].sum() * (2.0 / m) ** 0.5
                yield taps.gradients(value)


@pytest.mark.parametrize("most", [100, 3])
def test_of_a_linear_model_it_is_the_exact_gauss_newton_inverse(most: int) -> None:
    """G = E[a a^T] x 2 / m I; with runs of columns the blocks of E[a a^T]. Nothing is approximated."""
    draws = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 5, generator=draws, dtype=torch.float64)
    x = torch.randn(40, 5, generator=draws, dtype=torch.float64) @ mix
    net = nn.Linear(5, 3).double().requires_grad_(False)
    bases = eigenbases(exact_passes(net, x, 16), most)
    curve = curvature(bases, exact_passes(net, x, 7), len(x), damping=0.2)
    assert curve.parameters == 18

    inputs = torch.cat([x, torch.ones(40, 1, dtype=torch.float64)], dim=1)
    moment = inputs.T @ inputs / 40
    if most == 3:
        moment[:3, 3:] = moment[3:, :3] = 0.0
    ggn = torch.kron(torch.eye(3, dtype=torch.float64), moment) * 2 / 3
    damped = ggn + 0.2 * ggn.diagonal().mean() * torch.eye(18, dtype=torch.float64)
    pair = torch.randn(2, 3, 6, generator=draws, dtype=torch.float64)
    expected = pair[0].flatten() @ torch.linalg.solve(damped, pair[1].flatten())
    parts = curve.whitened("", pair)
    assert len(parts) == (2 if most == 3 else 1)
    found = sum(float((part[0] * part[1]).sum()) for part in parts)
    assert found == pytest.approx(float(expected), rel=1e-10)


def test_the_engine_on_a_linear_model_is_near_the_exact_answer() -> None:
    """Its residuals are drawn: many images average them. Mean squared error, so H = 2 / 4 I."""
    net = Flat().requires_grad_(False)
    pool, queries = random_samples(300, (1, 2, 2)), random_samples(3, (1, 2, 2), seed=1)
    made = engine(SmallDenoiser(net, make_schedule(T=50)), pool, queries, timesteps=5)
    spent: list[int] = []
    prepared = made.prepare(spent.append)
    found, cost = made.scores(prepared.arrays, [None] * 3)  # type: ignore[list-item]
    assert prepared.forwards == made.expected_forwards() == sum(spent) == 3 * 300 * (5 + 5 + 10)
    assert cost == 3 * 3 * 10
    assert prepared.facts == {"layers": 1, "share_of_parameters": 1.0}

    def gradients(samples: Samples) -> tuple[Tensor, Tensor]:
        inputs, means = [], []
        for batch, parts in made._passes(samples, _loss, int, 2):
            each = next(iter(parts))[1]
            inputs.append(each.inputs)
            means.append(torch.zeros(len(samples), 4, 5).index_add_(0, batch.rows, each.each()))
        return torch.cat(inputs).flatten(0, 1), (sum(means) / 10).flatten(1)  # type: ignore[union-attr]

    inputs, own = gradients(pool)
    ggn = torch.kron(torch.eye(4), inputs.T @ inputs / len(inputs)) / 2
    damped = ggn + 0.1 * ggn.diagonal().mean() * torch.eye(20)
    exact = (gradients(queries)[1] @ torch.linalg.solve(damped, own.T)).numpy()
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.995
    np.testing.assert_allclose(found, exact, atol=0.15 * np.abs(exact).max())


@pytest.mark.parametrize("kind", ["plain", "attention", "classes"])
def test_layer_gradients_are_autograds_one_sample_at_a_time(kind: str) -> None:
    classes = {"num_class_embeds": 4} if kind == "classes" else {}
    denoiser = make_denoiser(add_attention=kind == "attention", **classes)
    network = denoiser.network.eval()
    draws = torch.Generator().manual_seed(0)
    x, t = torch.randn(3, 1, 8, 8, generator=draws), torch.tensor([3, 11, 40])
    given = (torch.tensor([1, 0, 2]),) if classes else ()
    layers = layers_of(network)
    heads = {name.split(".")[-1] for name in layers}
    assert {"conv_in", "linear_1", "conv1", "time_emb_proj"} <= heads
    assert kind != "attention" or {"to_q", "to_k", "to_v"} <= heads
    expected = []
    for row in range(3):
        single = (value[row : row + 1] for value in (x, t, *given))
        network.requires_grad_(True)
        weights = [(layer.weight, layer.bias) for layer in layers.values()]
        flat = [value for pair in weights for value in pair if value is not None]
        parts = iter(torch.autograd.grad(denoiser.predict(*single).square().sum(), flat))
        network.requires_grad_(False)
        expected.append([[next(parts) for value in pair if value is not None] for pair in weights])
    with Taps(layers) as taps:
        found = dict(taps.gradients(denoiser.predict(x, t, *given).square().sum()))
    assert list(found) == list(layers)
    assert parameters_of(layers) == sum(each.each()[0].numel() for each in found.values())
    for place, (name, each) in enumerate(found.items()):
        for row in range(3):
            weight, *bias = expected[row][place]
            whole = torch.cat([weight.flatten(1), *(b[:, None] for b in bias)], dim=1)
            scale = float(whole.abs().max())
            np.testing.assert_allclose(
                each.each()[row], whole, rtol=1e-3, atol=1e-4 * scale + 1e-5, err_msg=name
            )
    assert not any(layer._forward_hooks for layer in layers.values())


def test_patches_of_a_convolution_with_stride_and_without_bias() -> None:
    net = nn.Conv2d(2, 3, (3, 2), stride=2, padding=(1, 0), bias=False).double()
    x = torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net.requires_grad_(False)
    with Taps({"": net}) as taps:
        ((_, found),) = taps.gradients(net(x).pow(3).sum())
    net.requires_grad_(True)
    for row in range(4):
        (expected,) = torch.autograd.grad(net(x[row : row + 1]).pow(3).sum(), net.weight)
        np.testing.assert_allclose(found.each()[row], expected.flatten(1), rtol=1e-10)


def test_layers_that_run_twice_and_layers_left_out() -> None:
    net = nn.Linear(3, 3).double()
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with Taps({"": net}) as taps:
        ((_, found),) = taps.gradients(torch.tanh(net(torch.tanh(net(x)))).sum())
    (weight,) = torch.autograd.grad(torch.tanh(net(torch.tanh(net(x)))).sum(), net.weight)
    np.testing.assert_allclose(found.each().sum(0)[:, :3], weight, rtol=1e-10)
    odd = nn.Sequential(
        nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 3, padding="same"), nn.Linear(2, 2),
    )  # fmt: skip
    assert list(layers_of(odd)) == ["3"]
    assert not layers_of(odd, lambda name: name == "3.bias")


POOL = kinds()


def test_images_of_the_querys_kind_score_higher_and_the_network_is_left_alone() -> None:
    network = learnt()
    network.network.eval().requires_grad_(False)
    before = bits(network)
    made = engine(network.denoiser, POOL, timesteps=4)
    prepared = made.prepare(lambda n: None)
    found, _ = made.scores(prepared.arrays, [None] * len(POOL))  # type: ignore[list-item]
    assert bits(network) == before
    same = np.equal.outer(np.arange(len(POOL)) % 2, np.arange(len(POOL)) % 2)
    np.fill_diagonal(found, 0.0)
    means = [found[same].mean(), found[~same].mean()]
    assert means[0] > means[1]


def test_chunks_order_and_company_play_no_part() -> None:
    denoiser = SmallDenoiser(Wavy(dropout=0.0).requires_grad_(False), make_schedule(T=50))
    pool = random_samples(6, (1, 4, 4))
    made = engine(denoiser, pool)
    prepared = made.prepare(lambda n: None)
    whole, _ = made.scores(prepared.arrays, [None] * 6)  # type: ignore[list-item]
    other = engine(denoiser, pool.rows([4, 2, 0, 1, 3, 5]), pool.rows([2]))
    other.chunk = 5
    again, _ = other.scores(other.prepare(lambda n: None).arrays, [None])  # type: ignore[list-item]
    np.testing.assert_allclose(again[0], whole[2, [4, 2, 0, 1, 3, 5]], rtol=2e-3, atol=1e-4 * whole.max())
    np.testing.assert_allclose(whole, whole.T, rtol=1e-4, atol=1e-5 * whole.max())


def test_a_projection_keeps_the_products_of_whitened_gradients() -> None:
    network = learnt()
    network.network.eval().requires_grad_(False)
    exact = engine(network.denoiser, POOL.rows(range(8)))
    small = engine(network.denoiser, POOL.rows(range(8)), projection=4096)
    found = []
    for made in (exact, small):
        prepared = made.prepare(lambda n: None)
        found.append(made.scores(prepared.arrays, [None] * 8)[0])  # type: ignore[list-item]
    own = np.sqrt(np.diag(found[0]))
    assert np.abs(found[0] - found[1]).max() / np.outer(own, own).max() < 4 * (2 / 4096) ** 0.5


def test_gradients_that_overflow() -> None:
    net = Flat().requires_grad_(False)
    net.layer.weight.fill_(float("nan"))
    made = engine(SmallDenoiser(net, make_schedule(T=50)), random_samples(2, (1, 2, 2)))
    with pytest.raises(DataError, match="not finite"):
        made.prepare(lambda n: None)


def test_a_network_in_training_mode() -> None:
    made = replace(engine(SmallDenoiser(Wavy()), random_samples(2)).context)
    made.model.denoiser.network.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        Ekfac(made)
