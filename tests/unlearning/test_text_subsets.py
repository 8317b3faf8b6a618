"""Parameter subsets of text-to-image networks: what is trained and stored, and how little that is."""

from __future__ import annotations

import copy

import pytest
import torch

from guda_cli.families.stable_diffusion import TextDenoiser
from guda_cli.training import loop
from guda_cli.unlearning import lora, subsets
from guda_cli.unlearning.unlearn import unlearn
from tests.unlearning.text_problem import entries, network, problem


def sd15(linear: bool = False) -> torch.nn.Module:
    """Stable Diffusion 1.5's network, or with linear projections as in 2.x; its weights take no memory."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, use_linear_projection=linear
        )


@pytest.mark.parametrize("linear", [False, True])
def test_rank_four_of_stable_diffusion_is_under_three_percent(linear: bool) -> None:
    unet = sd15(linear)
    modules, count = dict(unet.named_modules()), sum(p.numel() for p in unet.parameters())
    assert count > 850e6
    names = lora.targets(unet)
    size = 0
    for name in names:
        weight = modules[name].weight
        assert isinstance(weight, torch.Tensor)
        size += 4 * (weight.shape[0] + weight.shape[1:].numel())
    assert 0.001 < size / count < 0.01
    projections = [name for name in names if name.endswith((".proj_in", ".proj_out"))]
    assert len(projections) == 32  # of 16 transformers
    attention = [name for name in names if ".attn1." in name or ".attn2." in name]
    assert len(attention) == 16 * 2 * 4


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("params", ["full", "attn", "cross-attn-kv", "lora:2"])
def test_parameter_subsets_of_a_text_network(params: str, linear: bool) -> None:
    """What is stored gives the network back that was trained, whether its projections are linear or not."""
    p = problem("anchor:style-removed", params=params, lr=1e-2)
    assert p.text is not None
    full = network(use_linear_projection=linear)
    base = copy.deepcopy(full.state_dict())
    frozen = TextDenoiser(network(use_linear_projection=linear).eval(), p.schedule, p.text.bank)
    student = TextDenoiser(full, p.schedule, p.text.bank)
    kept = subsets.stored(unlearn(student, p, teacher=frozen, hooks=loop.Hooks()), base, params)
    merged = network(use_linear_projection=linear)
    merged.load_state_dict(subsets.merge(base, kept))
    part = entries(p)
    with torch.no_grad():
        one, two, before = (
            TextDenoiser(unet.eval(), p.schedule, p.text.bank).predict(part.x_t, part.t, part.cond)
            for unet in (full, merged, frozen.network)
        )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    assert float((one - before).abs().max()) > 1e-4
    if params == "cross-attn-kv":
        assert kept.keys() == {name for name in base if ".attn2.to_k." in name or ".attn2.to_v." in name}
    if params == "attn":
        assert kept.keys() <= {name for name in base if ".attn1." in name or ".attn2." in name}
        assert any(".attn1.to_q." in name for name in kept)
    if params == "lora:2":
        around = {f"down_blocks.0.attentions.0.proj_{end}.lora_B.weight" for end in ("in", "out")}
        assert around <= kept.keys()
        assert "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight" in kept
        assert not any(".ff." in name or "time_emb" in name for name in kept)
