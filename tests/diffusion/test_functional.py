"""A network as a function of its weights; per-sample gradients; how many fit into memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.functional import FunctionalNetwork, evaluating, how_many, sample_gradients
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError
from tests.diffusion.tiny import float_images, make_denoiser


def test_weights_are_exchanged_for_one_call() -> None:
    denoiser = make_denoiser()
    network, x, t = FunctionalNetwork(denoiser), float_images(2), torch.tensor([3, 40])
    own = denoiser.predict(x, t)
    zero = {name: torch.zeros_like(value) for name, value in network.weights().items()}
    assert not network.predict(zero, x, t).any()
    assert torch.equal(network.predict({}, x, t), own)
    assert torch.equal(network.predict(network.weights(), x, t), own)
    assert {name.partition(".")[0] for name, _ in network.named_parameters()} == {"network"}
    with pytest.raises(DataError, match="subset"):
        network.weights(lambda name: False)


@pytest.mark.parametrize("classes", [None, 3])
def test_gradients_of_each_sample_are_those_of_autograd(classes: int | None) -> None:
    denoiser = make_denoiser(num_class_embeds=classes, add_attention=True)
    network, x, t = FunctionalNetwork(denoiser), float_images(3), torch.tensor([3, 40, 17])
    cond = None if classes is None else torch.tensor([1, 0, 1])

    def value(own: Weights, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        assert x_t.shape == (1, 1, 8, 8)
        return network.predict(own, x_t, t, cond).square().mean()

    with evaluating(network):
        found = sample_gradients(value, network.weights(), x, t, cond)
        lengths = sample_gradients(
            value, network.weights(), x, t, cond, then=lambda own: sum(g.square().sum() for g in own.values())
        )
        for i in range(3):
            one = denoiser.predict(x[i : i + 1], t[i : i + 1], None if cond is None else cond[i : i + 1])
            parameters = dict(denoiser.network.named_parameters())
            expected = torch.autograd.grad(
                one.square().mean(), list(parameters.values()), materialize_grads=True
            )
            for name, each in zip(parameters, expected, strict=True):
                torch.testing.assert_close(found[name][i], each, rtol=1e-4, atol=1e-6)
    total = sum(each.square().flatten(1).sum(1) for each in found.values())
    torch.testing.assert_close(lengths, total, rtol=1e-4, atol=0.0)


def test_as_many_as_the_memory_holds() -> None:
    assert how_many(100, 1000) == 10
    assert how_many(100, 1099) == 10
    assert how_many(100, 1 << 40) == 64
    assert how_many(100, 1 << 40, most=7) == 7
    assert how_many(100, 1) == how_many(0, 0) == 1
