"""Weights as bytes, and models as what differs from another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion import networks
from guda_cli.errors import DataError
from guda_cli.families.pixels import Pixels
from tests.diffusion.tiny import CONFIG, make_unet


def weights() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 4, generator=g),
        "a.weight": torch.randn(2, 2, generator=g),
        "a.bias": torch.zeros(2),
        "steps": torch.tensor(3),
    }


def test_bytes_do_not_depend_on_the_order_of_names() -> None:
    one = weights()
    data = networks.to_bytes(one)
    assert networks.to_bytes(dict(reversed(one.items()))) == data
    assert networks.to_bytes(weights()) == data
    back = networks.from_bytes(data)
    assert sorted(back) == sorted(one)
    assert all(torch.equal(back[name], one[name]) for name in one)
    assert networks.to_bytes(back) == data


def test_bytes_do_not_depend_on_memory_layout() -> None:
    one = weights()
    strided = {**one, "b.weight": one["b.weight"].T.contiguous().T}
    assert not strided["b.weight"].is_contiguous()
    assert networks.to_bytes(strided) == networks.to_bytes(one)


def test_bytes_tell_one_bit_apart() -> None:
    changed = weights()
    changed["a.bias"][1] = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    assert networks.to_bytes(changed) != networks.to_bytes(weights())


def test_delta_holds_exactly_what_differs() -> None:
    base, after = weights(), weights()
    after["b.weight"][2, 1] += 1e-7 * after["b.weight"][2, 1].abs()
    after["steps"] += 1
    found = networks.delta(after, base)
    assert sorted(found) == ["b.weight", "steps"]
    assert networks.to_bytes({**base, **networks.from_bytes(networks.to_bytes(found))}) == networks.to_bytes(
        after
    )
    assert networks.delta(base, weights()) == {}


def test_delta_keeps_the_sign_of_zero() -> None:
    """-0.0 equals 0.0 and is another bit pattern; a restored model must have the same digest."""
    base, after = weights(), weights()
    after["a.bias"][0] = -0.0
    restored = {**base, **networks.delta(after, base)}
    assert networks.to_bytes(restored) == networks.to_bytes(after)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    damaged = weights()
    networks.check_finite(damaged, "the full model")
    damaged["a.weight"][1, 0] = bad
    with pytest.raises(DataError, match="the full model") as caught:
        networks.check_finite(damaged, "the full model")
    assert "a.weight" in caught.value.why


def test_same_seed_same_network() -> None:
    torch.manual_seed(5)
    one = make_unet(3).state_dict()
    torch.manual_seed(6)
    two = make_unet(3).state_dict()
    other = make_unet(4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["conv_in.weight"], other["conv_in.weight"])


def test_a_configuration_diffusers_refuses_is_a_data_error() -> None:
    with pytest.raises(DataError, match="UNet2DModel"):
        Pixels().build({**CONFIG, "down_block_types": ("DownBlock2D",)}, 0)
