"""Adapters that are no LoRA of Stable Diffusion 1.x or 2.x: refused by their right names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.model_source import register_source
from guda_cli.errors import DataError

STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"
DOTTED = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
NORM = STEM.replace("attn2_to_q", "norm1")
KOHYA = (f"{STEM}.lora_down.weight", f"{STEM}.lora_up.weight", f"{STEM}.alpha")
PEFT = (f"{DOTTED}.lora_A.weight", f"{DOTTED}.lora_B.weight")

KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "loha": ((f"{STEM}.hada_w1_a", f"{STEM}.hada_w2_b", f"{STEM}.alpha"), "LoHa"),
    "loha with a core": ((f"{STEM}.hada_t1", f"{STEM}.hada_w1_a"), "LoHa"),
    "loha of peft": ((f"{DOTTED}.hada_w1_a", f"{DOTTED}.hada_w1_b"), "LoHa"),
    "lokr": ((f"{STEM}.lokr_w1", f"{STEM}.lokr_w2_a", f"{STEM}.alpha"), "LoKr"),
    "lokr of lycoris": (("lycoris_down_blocks_0_resnets_0_conv1.lokr_w1",), "LoKr"),
    "glora": (tuple(f"{STEM}.{one}.weight" for one in ("a1", "a2", "b1", "b2")), "GLoRA"),
    "ia3": ((f"{STEM}.weight", f"{STEM}.on_input"), "(IA)^3"),
    "ia3 of peft": ((f"{DOTTED}.ia3_l",), "(IA)^3"),
    "ia3 of peft with its name": ((f"{DOTTED}.ia3_l.default",), "(IA)^3"),
    "full differences": ((f"{STEM}.diff", f"{STEM}.diff_b"), "full differences"),
    "differences of biases": ((*KOHYA, f"{STEM}.diff_b"), "full differences"),
    "whole weights": ((f"{STEM}.set_weight",), "whole weights"),
    "oft": ((f"{STEM}.oft_blocks", f"{STEM}.alpha"), "OFT"),
    "oft with scales": ((f"{STEM}.oft_diag", f"{STEM}.rescale"), "OFT"),
    "oft of kohya": (("oft_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.oft_blocks",), "OFT"),
    "oft of peft": ((f"{DOTTED}.oft_R.weight",), "OFT"),
    "boft of peft": ((f"{DOTTED}.boft_R", f"{DOTTED}.boft_s"), "BOFT"),
    "vera": ((f"{DOTTED}.vera_lambda_b", "base_model.vera_A"), "VeRA"),
    "adalora": ((f"{DOTTED}.lora_A", f"{DOTTED}.lora_B", f"{DOTTED}.lora_E"), "AdaLoRA"),
    "fourierft": ((f"{DOTTED}.fourierft_spectrum",), "another method of peft"),
    "dora": ((*KOHYA, f"{STEM}.dora_scale"), "DoRA"),
    "dora of peft": ((*PEFT, f"{DOTTED}.lora_magnitude_vector"), "DoRA"),
    "dora of peft with its name": ((*PEFT, f"{DOTTED}.lora_magnitude_vector.default.weight"), "DoRA"),
    "tucker": ((*KOHYA, f"{STEM}.lora_mid.weight"), "Tucker"),
    "trained scales": ((*KOHYA, f"{STEM}.scalar"), "trained scales"),
    "norms": ((*KOHYA, f"{NORM}.w_norm", f"{NORM}.b_norm"), "trained norms"),
    "norms alone": ((f"{NORM}.w_norm", f"{NORM}.b_norm"), "trained norms"),
    "a bundled embedding": (
        (*KOHYA, "bundle_emb.mill.string_to_param.*"),
        "an embedding (textual inversion) bundled",
    ),
    "embeddings of both encoders": (
        (*KOHYA, "bundle_emb.mill.clip_l"),
        "an embedding (textual inversion) bundled",
    ),
    "biases": ((*PEFT, f"{DOTTED}.bias"), "trained biases"),
    "biases below the layer": ((*PEFT, f"{DOTTED}.base_layer.bias"), "base_layer"),
    "biases of factors": ((*PEFT, f"{DOTTED}.lora_B.bias"), "lora_bias"),
    "biases of named factors": ((*PEFT, f"{DOTTED}.lora_B.default.bias"), "lora_bias"),
    "a whole network": ((*PEFT, f"{DOTTED}.base_layer.weight"), "the network's own weights"),
    "whole modules": ((*PEFT, "base_model.model.conv_out.weight"), "base_model.model.conv_out.weight"),
    "whole modules with their name": (
        (*PEFT, "base_model.model.conv_out.modules_to_save.default.weight"),
        "whole",
    ),
    "token embeddings": (("text_encoder.embeddings.token_embedding.lora_embedding_A",), "token embeddings"),
    "custom diffusion": ((f"{DOTTED}.to_k_custom_diffusion.weight",), "Custom Diffusion"),
    "an embedding": (("emb_params",), "an embedding"),
    "an embedding of the web interface": (("string_to_param.*", "string_to_token.*"), "an embedding"),
    "an embedding for both encoders": (("clip_g", "clip_l"), "an embedding"),
    "an embedding under its word": (("<mill>",), "an embedding"),
    "a hypernetwork": (("768.0.linear.0.weight", "768.1.linear.0.weight"), "a hypernetwork"),
    "a ControlLoRA": (("lora_controlnet", "input_blocks.1.0.emb_layers.1.up"), "a ControlLoRA"),
    "a ControlNet": (("control_model.input_hint_block.0.weight",), "a ControlNet"),
    "a ControlNet-LLLite": (("lllite_unet_input_blocks_4_1.cond_emb.weight",), "ControlNet-LLLite"),
    "an IP-Adapter with a LoRA": (
        ("ip_adapter.0.to_q_lora.down.weight", "image_proj.norm.weight"),
        "an IP-Adapter",
    ),
    "a motion module": (("down_blocks.0.motion_modules.0.to_q.lora_A.weight",), "a motion module"),
    "a file of numbers": (("unet:0:up", "unet:0:down", "text_encoder:0:up"), "numbers in the place of"),
    "an unknown tensor": ((*KOHYA, f"{STEM}.novelty"), "it is not known what they are"),
}

FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "kohya's second encoder": (
        (*KOHYA, "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"),
        "XL",
    ),
    "diffusers' second encoder": (
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",),
        "XL",
    ),
    "more blocks of attention": (
        (STEM.replace("blocks_0_attn2", "blocks_3_attn2") + ".lora_down.weight",),
        "XL",
    ),
    "more blocks by CompVis": (
        ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_k.lora_down.weight",),
        "XL",
    ),
    "its embedding of sizes": (("lora_unet_label_emb_0_0.lora_down.weight",), "XL"),
    "stable diffusion 3": (
        ("lora_unet_joint_blocks_0_context_block_mlp_fc1.lora_down.weight",),
        "Stable Diffusion 3",
    ),
    "its third encoder": (
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_k.lora_down.weight",),
        "Stable Diffusion 3",
    ),
    "flux of kohya": (("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",), "Flux"),
    "flux of diffusers": (("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight",), "Flux"),
    "a transformer": (
        ("transformer.transformer_blocks.0.attn.to_k.lora_A.weight",),
        "a diffusion transformer",
    ),
    "a video model": (("diffusion_model.blocks.0.cross_attn.k.lora_down.weight",), "a transformer"),
    "a language model": (
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",),
        "a transformer",
    ),
    "cascade": (("lora_prior_unet_blocks_0_0.lora_down.weight",), "Stable Cascade"),
}


def message(source: Path, base: str | None) -> str:
    with pytest.raises(DataError) as caught:
        register_source(str(source), base)
    error = caught.value
    assert error.exit_code == 3
    for blamed in ("does not belong", "nor a LoRA", "--base"):
        assert blamed not in f"{error.message} {error.why} {error.fix}"
    assert error.fix
    return f"{error.message} | {error.why}"


def written(names: tuple[str, ...], path: Path) -> Path:
    save_file({name: torch.ones(8, 8) for name in names}, path)
    return path


@pytest.mark.parametrize("name", list(KINDS))
def test_kinds(name: str, saved: Path, tmp_path: Path) -> None:
    names, word = KINDS[name]
    path = written(names, tmp_path / "lora.safetensors")
    assert word in message(path, str(saved))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_families(name: str, saved: Path, tmp_path: Path) -> None:
    names, word = FAMILIES[name]
    said = message(written(names, tmp_path / "lora.safetensors"), str(saved))
    assert f"is an adapter for {word}" in said.replace("Stable Diffusion XL", "XL")


def test_a_kind_is_told_before_a_base_is_wanted(tmp_path: Path) -> None:
    assert "LoHa" in message(written((f"{STEM}.hada_w1_a",), tmp_path / "lora.safetensors"), None)
    assert "an embedding" in message(written(("emb_params",), tmp_path / "mill.safetensors"), None)


@pytest.mark.parametrize("width", [768, 1024])
def test_an_embedding_under_any_word(width: int, tmp_path: Path) -> None:
    save_file({"mill": torch.ones(2, width)}, tmp_path / "mill.safetensors")
    assert "an embedding" in message(tmp_path / "mill.safetensors", None)


def test_the_width_of_text_embeddings_tells_a_family(saved: Path, tmp_path: Path) -> None:
    key = STEM.replace("to_q", "to_k")
    tensors = {f"{key}.lora_down.weight": torch.ones(2, 2048), f"{key}.lora_up.weight": torch.ones(8, 2)}
    save_file(tensors, tmp_path / "lora.safetensors")
    assert "an adapter for Stable Diffusion XL" in message(tmp_path / "lora.safetensors", str(saved))


def test_modules_of_no_such_network(saved: Path, tmp_path: Path) -> None:
    path = written(("encoder_of_sound.3.key.lora_A.weight",), tmp_path / "lora.safetensors")
    said = message(path, str(saved))
    assert "modules that Stable Diffusion does not have" in said
    assert "encoder_of_sound" in said


@pytest.mark.parametrize("ending", [".pt", ".bin", ".ckpt"])
def test_pickles(ending: str, saved: Path, tmp_path: Path) -> None:
    torch.save({KOHYA[0]: torch.ones(2, 8)}, tmp_path / f"lora{ending}")
    assert "a pickle can run any code" in message(tmp_path / f"lora{ending}", str(saved))
