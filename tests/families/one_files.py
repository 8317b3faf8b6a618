"""A pipeline's weights in one file, under its first trainers' names: the inverse of diffusers' readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.latent import compvis

Weights = dict[str, Tensor]
NETWORK = "model.diffusion_model."


def part(folder: Path, name: str) -> Weights:
    [file] = (folder / name).glob("*.safetensors")
    return load_file(file)


def unet(weights: Weights) -> Weights:
    """Stable Diffusion XL's, of one layer a block."""
    out = {}
    for name, value in weights.items():
        if name.startswith("add_embedding.linear_"):
            number, leaf = name.removeprefix("add_embedding.linear_").split(".")
            own = f"label_emb.0.{2 * int(number) - 2}.{leaf}"
        else:
            own = compvis._unet(name, layers=1)
            if name.startswith("up_blocks.0.upsamplers."):  # after the attention, which the block has
                own = own.replace(".1.conv.", ".2.conv.")
        out[NETWORK + own] = value
    return out


def clip(weights: Weights, prefix: str) -> Weights:
    named = {name.removeprefix("text_model."): value for name, value in weights.items()}
    out = {
        prefix + (name if name.startswith("text_projection") else f"text_model.{name}"): value
        for name, value in named.items()
    }
    return {**out, f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


def open_clip(weights: Weights, layers: int) -> Weights:
    prefix = "conditioner.embedders.1.model."
    named = {name.removeprefix("text_model."): value for name, value in weights.items()}
    out = {
        "positional_embedding": named["embeddings.position_embedding.weight"],
        "token_embedding.weight": named["embeddings.token_embedding.weight"],
        "ln_final.weight": named["final_layer_norm.weight"],
        "ln_final.bias": named["final_layer_norm.bias"],
        "text_projection": named["text_projection.weight"].T,
        "logit_scale": torch.ones(()),
    }
    for i in range(layers):
        layer, place = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            qkv = [named[f"{layer}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            out[f"{place}.attn.in_proj_{kind}"] = torch.cat(qkv)
            for new, old in compvis.OPEN_CLIP.items():
                out[f"{place}.{old}.{kind}"] = named[f"{layer}.{new}.{kind}"]
    return {prefix + name: value for name, value in out.items()}


def sdxl(folder: Path) -> Weights:
    return {
        **unet(part(folder, "unet")),
        **compvis.vae(part(folder, "vae"), blocks=2),
        **clip(part(folder, "text_encoder"), "conditioner.embedders.0.transformer."),
        **open_clip(part(folder, "text_encoder_2"), layers=3),
    }


def swapped(value: Tensor) -> Tensor:
    return torch.cat(value.chunk(2)[::-1])


def joint(weights: Weights, layers: int = 2) -> Weights:
    """Stable Diffusion 3's transformer."""
    out = {"pos_embed": weights["pos_embed.pos_embed"]}
    for kind in ("weight", "bias"):
        for old, new in {
            "x_embedder.proj": "pos_embed.proj", "context_embedder": "context_embedder",
            "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
            "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
            "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
            "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
            "final_layer.linear": "proj_out",
        }.items():  # fmt: skip
            out[f"{old}.{kind}"] = weights[f"{new}.{kind}"]
        out[f"final_layer.adaLN_modulation.1.{kind}"] = swapped(weights[f"norm_out.linear.{kind}"])
        for i in range(layers):
            old, new, last = f"joint_blocks.{i}", f"transformer_blocks.{i}", i == layers - 1

            def told(name: str, where: str = new, leaf: str = kind) -> Tensor:
                return weights[f"{where}.{name}.{leaf}"]

            own = {
                "x_block.attn.qkv": torch.cat([told(f"attn.to_{one}") for one in "qkv"]),
                "context_block.attn.qkv": torch.cat([told(f"attn.add_{one}_proj") for one in "qkv"]),
                "x_block.attn.proj": told("attn.to_out.0"),
                "x_block.adaLN_modulation.1": told("norm1.linear"),
                "x_block.mlp.fc1": told("ff.net.0.proj"),
                "x_block.mlp.fc2": told("ff.net.2"),
            }
            context = told("norm1_context.linear")
            own["context_block.adaLN_modulation.1"] = swapped(context) if last else context
            if kind == "weight":
                own |= {
                    "x_block.attn.ln_q": told("attn.norm_q"), "x_block.attn.ln_k": told("attn.norm_k"),
                    "context_block.attn.ln_q": told("attn.norm_added_q"),
                    "context_block.attn.ln_k": told("attn.norm_added_k"),
                }  # fmt: skip
            if not last:
                own |= {
                    "context_block.attn.proj": told("attn.to_add_out"),
                    "context_block.mlp.fc1": told("ff_context.net.0.proj"),
                    "context_block.mlp.fc2": told("ff_context.net.2"),
                }
            out |= {f"{old}.{name}.{kind}": value for name, value in own.items()}
    return {NETWORK + name: value for name, value in out.items()}


def sd3(folder: Path, texts: bool = True) -> Weights:
    out = {**joint(part(folder, "transformer")), **compvis.vae(part(folder, "vae"), blocks=2)}
    if texts:
        out |= clip(part(folder, "text_encoder"), "text_encoders.clip_l.transformer.")
        out |= clip(part(folder, "text_encoder_2"), "text_encoders.clip_g.transformer.")
        t5 = part(folder, "text_encoder_3")
        out |= {f"text_encoders.t5xxl.transformer.{name}": value for name, value in t5.items()}
        out["text_encoders.clip_l.logit_scale"] = torch.ones(())
    return out


def z_image(folder: Path) -> Weights:
    """The transformer alone, its queries, keys and values in one."""
    weights = part(folder, "transformer")
    out = {}
    for name, value in weights.items():
        if ".attention.to_k." in name or ".attention.to_v." in name:
            continue
        if ".attention.to_q." in name:
            value = torch.cat([weights[name.replace(".to_q.", f".to_{one}.")] for one in "qkv"])
        own = name.replace("all_final_layer.2-1.", "final_layer.").replace(
            "all_x_embedder.2-1.", "x_embedder."
        )
        for new, old in {
            ".to_q.": ".qkv.", ".to_out.0.": ".out.", ".norm_q.": ".q_norm.", ".norm_k.": ".k_norm.",
        }.items():  # fmt: skip
            own = own.replace(f".attention{new}", f".attention{old}")
        out[NETWORK + own] = value
    return out


def qwen_image(folder: Path) -> Weights:
    """The transformer alone, as it is."""
    return {NETWORK + name: value for name, value in part(folder, "transformer").items()}


def flux(weights: Weights) -> Weights:
    """FLUX.1's transformer, of one layer of each kind, without guidance; also of tensors without numbers."""
    out: dict[str, Any] = {}
    for kind in ("weight", "bias"):
        for old, new in {
            "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
            "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
            "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
            "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
            "txt_in": "context_embedder", "img_in": "x_embedder", "final_layer.linear": "proj_out",
            "double_blocks.0.img_mod.lin": "transformer_blocks.0.norm1.linear",
            "double_blocks.0.txt_mod.lin": "transformer_blocks.0.norm1_context.linear",
            "double_blocks.0.img_mlp.0": "transformer_blocks.0.ff.net.0.proj",
            "double_blocks.0.img_mlp.2": "transformer_blocks.0.ff.net.2",
            "double_blocks.0.txt_mlp.0": "transformer_blocks.0.ff_context.net.0.proj",
            "double_blocks.0.txt_mlp.2": "transformer_blocks.0.ff_context.net.2",
            "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out.0",
            "double_blocks.0.txt_attn.proj": "transformer_blocks.0.attn.to_add_out",
            "single_blocks.0.modulation.lin": "single_transformer_blocks.0.norm.linear",
            "single_blocks.0.linear2": "single_transformer_blocks.0.proj_out",
        }.items():  # fmt: skip
            out[f"{old}.{kind}"] = weights[f"{new}.{kind}"]
        out[f"final_layer.adaLN_modulation.1.{kind}"] = swapped(weights[f"norm_out.linear.{kind}"])
        block, single = "transformer_blocks.0.attn", "single_transformer_blocks.0"
        out[f"double_blocks.0.img_attn.qkv.{kind}"] = torch.cat(
            [weights[f"{block}.to_{one}.{kind}"] for one in "qkv"]
        )
        out[f"double_blocks.0.txt_attn.qkv.{kind}"] = torch.cat(
            [weights[f"{block}.add_{one}_proj.{kind}"] for one in "qkv"]
        )
        rows = [weights[f"{single}.attn.to_{one}.{kind}"] for one in "qkv"]
        out[f"single_blocks.0.linear1.{kind}"] = torch.cat([*rows, weights[f"{single}.proj_mlp.{kind}"]])
    for one, name in (("q", "query"), ("k", "key")):
        out[f"double_blocks.0.img_attn.norm.{name}_norm.scale"] = weights[f"{block}.norm_{one}.weight"]
        out[f"double_blocks.0.txt_attn.norm.{name}_norm.scale"] = weights[f"{block}.norm_added_{one}.weight"]
        out[f"single_blocks.0.norm.{name}_norm.scale"] = weights[f"{single}.attn.norm_{one}.weight"]
    return out
