"""The one-file layout of community checkpoints, written from the folder's weights: the reader's inverse.

Names by CompVis's latent-diffusion and stability's OpenCLIP encoder, worked out from their module trees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guda_cli.checkpoints.pipeline_folder import Pipeline
from guda_cli.diffusion import networks

Weights = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet(weights: Weights, layers: int) -> Weights:
    """`layers` is layers_per_block; each block is numbered through, its up- or downsampler with it."""
    return {f"model.diffusion_model.{_unet(name, layers)}": value for name, value in weights.items()}


def _unet(name: str, layers: int) -> str:
    for new, old in TOP.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    side, block, *rest = name.split(".")
    if side == "mid_block":
        kind, i, *rest = [block, *rest]
        place = "middle_block." + ("1" if kind == "attentions" else str(2 * int(i)))
    else:
        kind, i, *rest = rest
        down = side == "down_blocks"
        number = int(block) * (layers + 1) + (
            down + int(i) if kind in ("resnets", "attentions") else layers + down
        )
        part = {"resnets": "0", "attentions": "1", "downsamplers": "0", "upsamplers": "1"}[kind]
        if kind == "upsamplers" and int(block) > 0:
            part = "2"  # after the attention, which the first block of the tiny model has not
        place = f"{'input' if down else 'output'}_blocks.{number}.{part}"
    tail = ".".join(rest)
    if kind == "resnets":
        module, _, leaf = tail.rpartition(".")
        tail = f"{RESNET[module]}.{leaf}"
    return f"{place}.{tail.replace('conv.', 'op.') if kind == 'downsamplers' else tail}"


def vae(weights: Weights, blocks: int) -> Weights:
    """Attention is a 1 x 1 convolution there; the decoder's blocks are numbered from the image inwards."""
    out = {}
    for name, value in weights.items():
        side, _, rest = name.partition(".")
        parts = rest.split(".")
        if parts[0] == "mid_block" and parts[1] == "attentions":
            module, _, leaf = ".".join(parts[3:]).rpartition(".")
            name = f"{side}.mid.attn_1.{ATTENTION[module]}.{leaf}"
            if value.ndim == 2:
                value = value[:, :, None, None]
        elif parts[0] == "mid_block":
            name = f"{side}.mid.block_{int(parts[2]) + 1}.{'.'.join(parts[3:])}"
        elif parts[0] in ("down_blocks", "up_blocks"):
            way = parts[0].split("_")[0]
            block = int(parts[1]) if way == "down" else blocks - 1 - int(parts[1])
            tail = ".".join(parts[4:])
            part = f"block.{parts[3]}" if parts[2] == "resnets" else f"{way}sample"
            name = f"{side}.{way}.{block}.{part}.{tail}"
        elif parts[0] == "conv_norm_out":
            name = f"{side}.norm_out.{parts[1]}"
        out["first_stage_model." + name.replace("conv_shortcut", "nin_shortcut")] = value
    return out


def clip(weights: Weights) -> Weights:
    """The text encoder of Stable Diffusion 1, with its position numbers."""
    prefix = "cond_stage_model.transformer.text_model."
    out = {prefix + name: value for name, value in weights.items()}
    return {**out, prefix + "embeddings.position_ids": torch.arange(77)[None]}


def open_clip(weights: Weights, layers: int) -> Weights:
    """The text encoder of Stable Diffusion 2: one layer more, and the projection, which are not read."""
    prefix = "cond_stage_model.model."
    top = {
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    out = {prefix + old: weights[new] for new, old in top.items()}
    for i in range(layers + 1):
        layer, place = f"encoder.layers.{min(i, layers - 1)}", f"{prefix}transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            qkv = torch.cat([weights[f"{layer}.self_attn.{one}_proj.{kind}"] for one in "qkv"])
            out[f"{place}.attn.in_proj_{kind}"] = qkv
            for new, old in OPEN_CLIP.items():
                out[f"{place}.{old}.{kind}"] = weights[f"{layer}.{new}.{kind}"]
    width = weights["final_layer_norm.weight"].numel()
    return {
        **out,
        f"{prefix}text_projection": torch.zeros(width, width),
        f"{prefix}logit_scale": torch.ones(()),
    }


def checkpoint(pipeline: Pipeline, openclip: bool = False) -> Weights:
    """A whole model in one file, with the tensors beside it that such files have."""
    parts = pipeline.components
    text = networks.from_bytes(bytes(parts.text_encoder))
    tensors = {
        **unet(networks.from_bytes(bytes(pipeline.unet)), layers=1),
        **vae(networks.from_bytes(bytes(parts.vae)), blocks=2),
        **(open_clip(text, layers=2) if openclip else clip(text)),
        "alphas_cumprod": torch.linspace(1, 0, 1000),
        "model_ema.decay": torch.ones(()),
        "first_stage_model.loss.logvar": torch.zeros(()),
    }
    return {name: value.clone() for name, value in tensors.items()}
