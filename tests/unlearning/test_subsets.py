"""Parameter subsets: what is trained, what is stored, and that both give the same network back."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion import networks
from guda_cli.errors import DataError
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.unlearning import lora, subsets
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.unlearn import unlearn
from tests.diffusion.tiny import bytes_images, make_schedule, make_unet
from tests.unlearning.helpers import COUNT, mask, problem

ATTENTION = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "dropout": 0.2,
}  # fmt: skip


def network() -> torch.nn.Module:
    return make_unet(**ATTENTION)


def case(params: str, operator: str = "retrack") -> Problem:
    p = problem(operator, make_schedule(), params=params, steps=4, neighbours=3)
    return dataclasses.replace(p, images=bytes_images(COUNT, (1, 8, 8)), forget=mask(0, 2, 7))


def run(
    params: str, operator: str = "retrack", resume: RunState | None = None, hooks: loop.Hooks | None = None
) -> dict[str, Tensor]:
    p = case(params, operator)
    return unlearn(UNetDenoiser(network(), p.schedule), p, resume=resume, hooks=hooks or loop.Hooks())


def test_only_attention_changes() -> None:
    base = network().state_dict()
    kept = subsets.stored(run("attn"), base, "attn")
    merged = subsets.merge(base, kept)
    attention = {name for name in base if ".attentions." in name}
    assert kept.keys() <= attention
    assert any(name.endswith("to_q.weight") for name in kept)
    for name, value in base.items():
        assert torch.equal(merged[name], value) == (name not in kept)
    frozen = network()
    subsets.prepare(frozen, "attn", 0)
    assert {n for n, p in frozen.named_parameters() if p.requires_grad} == attention


@pytest.mark.parametrize("operator", ["retrack", "siss"])
@pytest.mark.parametrize("params", ["attn", "lora:2"])
def test_resumed_at_every_save_it_ends_in_the_same_bits(params: str, operator: str) -> None:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole = run(params, operator, hooks=loop.Hooks(save=save, save_seconds=0.0))
    assert sorted(states) == [1, 2, 3]
    for step, data in states.items():
        state = RunState.from_bytes(step, data)
        assert state.weights.keys() == whole.keys()  # frozen weights are not saved
        again = run(params, operator, resume=state)
        assert all(torch.equal(again[name], whole[name]) for name in whole), step


@pytest.mark.parametrize("rank", [1, 3])
def test_stored_size_of_a_low_rank_update(rank: int) -> None:
    unet = network()
    base = unet.state_dict()
    kept = subsets.stored(run(f"lora:{rank}"), base, f"lora:{rank}")
    expected = 0
    for name in lora.targets(unet):
        shape = base[f"{name}.weight"].shape
        expected += rank * (shape[0] + shape[1:].numel())
    assert sum(value.numel() for value in kept.values()) == expected
    assert len(networks.to_bytes(kept)) < 4 * expected + 250 * len(kept)
    targets = lora.targets(unet)
    assert "conv_in" in targets
    assert "down_blocks.1.attentions.0.to_out.0" in targets
    assert not any("time_emb" in name for name in targets)


@pytest.mark.parametrize("operator", ["retrack", "erasediff"])
def test_merged_weights_say_what_the_injected_network_says(operator: str) -> None:
    p, unet = case("lora:2", operator), network()
    trained = unlearn(
        UNetDenoiser(unet, p.schedule), p, hooks=loop.Hooks()
    )  # in place: `unet` now holds the factors
    base = network().state_dict()
    kept = subsets.stored(trained, base, "lora:2")
    assert any(float(v.abs().max()) > 1e-5 for name, v in kept.items() if lora.B in name)
    merged = network()
    merged.load_state_dict(subsets.merge(base, networks.from_bytes(networks.to_bytes(kept))))
    x_t = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1, 5, 10, 20, 40, 50])
    with torch.no_grad():
        one, two, before = (
            UNetDenoiser(u.eval(), p.schedule).predict(x_t, t) for u in (unet, merged, network())
        )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    assert float((one - before).abs().max()) > 1e-3


def test_injection_is_seeded_and_changes_nothing_yet() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    nets = [network() for _ in range(3)]
    torch.set_rng_state(state)
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        lora.inject(net, 2, seed)
    assert torch.equal(torch.get_rng_state(), state)
    low = [net.state_dict()["conv_in.lora_A.default.weight"] for net in nets]
    assert torch.equal(low[0], low[1])
    assert not torch.equal(low[0], low[2])
    x_t, t = torch.ones(2, 1, 8, 8), torch.tensor([3, 30])
    plain, injected = (UNetDenoiser(n.eval(), make_schedule()).predict(x_t, t) for n in (network(), nets[0]))
    torch.testing.assert_close(plain, injected)


def test_factors_of_another_network_are_refused() -> None:
    kept = subsets.stored(run("lora:1"), network().state_dict(), "lora:1")
    other = {name: value for name, value in network().state_dict().items() if "conv_in" not in name}
    with pytest.raises(DataError, match="conv_in"):
        subsets.merge(other, kept)


def test_a_network_without_such_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="attn"):
        subsets.prepare(make_unet(), "attn", 0)
    with pytest.raises(ValueError, match="cross-attn-kv"):
        subsets.prepare(network(), "cross-attn-kv", 0)


def test_keys_and_values_of_cross_attention() -> None:
    from diffusers.models.attention_processor import Attention

    net = torch.nn.ModuleDict(
        {"attn1": Attention(8, heads=2, dim_head=4), "attn2": Attention(8, cross_attention_dim=6, heads=2)}
    )
    subsets.prepare(net, "cross-attn-kv", 0)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"attn2.to_k.weight", "attn2.to_v.weight"}
