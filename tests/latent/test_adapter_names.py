"""The names that trainers give a LoRA's tensors: every one leads to the same merged weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.adapter_names import Modules, compvis_names, read_name
from guda_cli.checkpoints.lora_file import apply_lora, is_lora
from guda_cli.checkpoints.model_source import register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.diffusion import networks
from guda_cli.errors import DataError
from tests.latent import compvis

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
OUT = "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0"
MIDDLE = "mid_block.attentions.0.proj_in"
SHORTCUT = "up_blocks.0.resnets.1.conv_shortcut"
UP = "up_blocks.0.upsamplers.0.conv"
TEXT = "encoder.layers.1.self_attn.v_proj"
TEXT_MLP = "encoder.layers.0.mlp.fc2"
UNET = {  # stems as files have them
    QUERY: (
        f"{QUERY}.lora_A.default", f"base_model.model.{QUERY}.lora_A.my-style.v2",
        f"unet.base_model.model.{QUERY}.lora_A", f"module.{QUERY}.lora_A.default_0",
        f"unet.{QUERY}.lora_down", f"lora_unet.{QUERY}.lora_down", f"_orig_mod.{QUERY}.lora_A",
        f"lora_unet_{QUERY.replace('.', '_')}.lora_down", f"lycoris_{QUERY.replace('.', '_')}.lora_down",
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q.lora_down",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.lora_down",
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.lora_A",
        QUERY.replace("attn2.", "attn2.processor.") + "_lora.down",
        "unet." + QUERY.replace("attn2.", "attn2.processor.") + "_lora.down",
    ),
    OUT: (
        f"{OUT}.lora_A", f"{OUT.removesuffix('.0')}.lora_A", f"lora_unet_{OUT.replace('.', '_')}.lora_down",
        "lora_unet_output_blocks_3_1_transformer_blocks_0_attn1_to_out_0.lora_down",
        OUT.replace("attn1.to_out.0", "attn1.processor.to_out_lora.down"),
    ),
    MIDDLE: (
        "lora_unet_mid_block_attentions_0_proj_in.lora_down", "lora_unet_middle_block_1_proj_in.lora_down",
    ),
    SHORTCUT: (
        f"lora_unet_{SHORTCUT.replace('.', '_')}.lora_down",
        "lora_unet_output_blocks_1_0_skip_connection.lora_down",
    ),
    UP: ("lora_unet_up_blocks_0_upsamplers_0_conv.lora_down", "lora_unet_output_blocks_1_1_conv.lora_down"),
    "down_blocks.0.downsamplers.0.conv": ("lora_unet_input_blocks_2_0_op.lora_down",),
    "down_blocks.1.resnets.0.time_emb_proj": ("lora_unet_input_blocks_3_0_emb_layers_1.lora_down",),
    "time_embedding.linear_2": (
        "lora_unet_time_embed_2.lora_down", "lora_unet_time_embedding_linear_2.lora_down",
    ),
    "conv_in": ("lora_unet_input_blocks_0_0.lora_down", "lora_unet_conv_in.lora_down"),
    "conv_out": ("lora_unet_out_2.lora_down", "unet.conv_out.lora_A.default"),
}  # fmt: skip
TEXTS = {
    TEXT: (
        f"text_encoder.{TEXT}.lora_A.default", f"text_encoder.text_model.{TEXT}.lora_linear_layer.down",
        f"base_model.model.text_model.{TEXT}.lora_A", f"base_model.model.{TEXT}.lora_A.default",
        "text_encoder.text_model.encoder.layers.1.self_attn.to_v_lora.down",
        f"lora_te_text_model_{TEXT.replace('.', '_')}.lora_down",
        f"lora_te1_text_model_{TEXT.replace('.', '_')}.lora_down",
        f"lora_te_{TEXT.replace('.', '_')}.lora_down",
        f"cond_stage_model.transformer.text_model.{TEXT}.lora_down", f"clip_l.{TEXT}.lora_down",
        f"lora_cond_stage_model_transformer_text_model_{TEXT.replace('.', '_')}.lora_down",
    ),
    TEXT_MLP: (
        "cond_stage_model.model.transformer.resblocks.0.mlp.c_proj.lora_down",
        "lora_te_text_model_encoder_layers_0_mlp_fc2.lora_down",
    ),
}  # fmt: skip
CASES = [
    (part, module, name)
    for part, table in (("unet", UNET), ("text_encoder", TEXTS))
    for module, names in table.items()
    for name in names
]
_UP = {"lora_A": "lora_B", "lora_down": "lora_up", "lora.down": "lora.up", "layer.down": "layer.up"}


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


def weights_of(pipeline: Pipeline) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "unet": networks.from_bytes(bytes(pipeline.unet)),
        "text_encoder": networks.from_bytes(bytes(pipeline.components.text_encoder)),
    }


def written(pipeline: Pipeline, part: str, module: str, name: str, path: Path) -> Path:
    """A file with factors of `module`, whose product is 0.5 everywhere, under the `name` of the first one."""
    down, up = name, name
    for first, second in _UP.items():
        up = up.replace(first, second)
    shape = weights_of(pipeline)[part][f"{module}.weight"].shape
    tensors = {
        f"{down}.weight": torch.full((1, *shape[1:]), 0.5),
        f"{up}.weight": torch.ones(shape[0], 1, *(1 for _ in shape[2:])),
    }
    assert len(tensors) == 2
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(("part", "module", "name"), CASES, ids=[name for _, _, name in CASES])
def test_names(part: str, module: str, name: str, pipeline: Pipeline, tmp_path: Path) -> None:
    path = written(pipeline, part, module, name, tmp_path / "lora.safetensors")
    have, base = weights_of(apply_lora(pipeline, path)), weights_of(pipeline)
    moved = {(p, n) for p in base for n in base[p] if not torch.equal(base[p][n], have[p][n])}
    assert moved == {(part, f"{module}.weight")}
    torch.testing.assert_close(have[part][f"{module}.weight"], base[part][f"{module}.weight"] + 0.5)


def test_compvis_names_are_those_of_checkpoints(pipeline: Pipeline) -> None:
    """As the layout of one-file checkpoints has them, which diffusers reads (test_single_file)."""
    weights = weights_of(pipeline)["unet"]
    modules = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    known = compvis_names(modules)
    for name in weights:
        module, _, leaf = name.rpartition(".")
        old = next(iter(compvis.unet({name: weights[name]}, layers=1))).removeprefix("model.diffusion_model.")
        if (
            module in known
            and ".norm" not in module
            and "group_norm" not in module
            and "conv_norm" not in module
        ):
            assert f"{known[module]}.{leaf}" == old, module


def test_compvis_names_of_the_true_network() -> None:
    """Stable Diffusion 1.5's: by diffusers' own reader of its one-file checkpoints."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel(cross_attention_dim=768)
    names = {name.removesuffix(".weight") for name, v in network.state_dict().items() if v.ndim > 1}
    known = compvis_names(names)
    assert known.keys() == names
    assert len(set(known.values())) == len(names)
    tensors = {f"model.diffusion_model.{old}.weight": torch.tensor(i) for i, old in enumerate(known.values())}
    for old in ("out.0", *known.values()):  # what the reader looks for and no LoRA has
        for leaf in ("weight", "bias"):
            tensors.setdefault(f"model.diffusion_model.{old}.{leaf}", torch.tensor(-1))
    made = convert_ldm_unet_checkpoint(tensors, dict(network.config))
    for i, new in enumerate(known):
        assert int(made[f"{new}.weight"]) == i, new


def test_alphas(pipeline: Pipeline, tmp_path: Path) -> None:
    """As half precision, as whole numbers, as one number in a row; of a module named by CompVis."""
    stem = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q"
    base = weights_of(pipeline)["unet"][f"{QUERY}.weight"]
    for alpha in (
        torch.tensor(0.5).half(),
        torch.tensor(4),
        torch.tensor([2.0]),
        torch.tensor(3.0).bfloat16(),
    ):
        tensors = {
            f"{stem}.lora_down.weight": torch.ones(2, 8).half(),
            f"{stem}.lora_up.weight": torch.ones(8, 2).half(),
            f"{stem}.alpha": alpha,
        }
        save_file(tensors, tmp_path / "lora.safetensors")
        have = weights_of(apply_lora(pipeline, tmp_path / "lora.safetensors"))["unet"][f"{QUERY}.weight"]
        torch.testing.assert_close(have, base + float(alpha))


def message(pipeline: Pipeline, tensors: dict[str, torch.Tensor], path: Path) -> str:
    save_file(tensors, path)
    with pytest.raises(DataError) as caught:
        apply_lora(pipeline, path)
    return f"{caught.value.message} | {caught.value.why}"


BAD: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], str]] = {
    "two adapters": (
        lambda t: t | {k.replace("default", "second"): v.clone() for k, v in t.items()},
        "2 adapters: default, second",
    ),
    "two updates": (
        lambda t: t | {k.replace("unet.", "diffusion_model."): v.clone() for k, v in t.items()},
        "two updates of unet",
    ),
    "an alpha of two numbers": (lambda t: t | {f"unet.{QUERY}.alpha": torch.ones(2)}, "no single number"),
    "an alpha that is none": (lambda t: t | {f"unet.{QUERY}.alpha": torch.tensor(float("nan"))}, "NaN"),
    "an alpha alone": (lambda t: t | {f"unet.{OUT}.alpha": torch.tensor(1.0)}, "has no down factor"),
    "vectors": (lambda t: {k: v.reshape(-1) for k, v in t.items()}, "no matrices"),
    "nothing": (lambda t: {k: v[:0] if "_A" in k else v[:, :0] for k, v in t.items()}, "no matrices"),
    "truth values": (lambda t: {k: v > 0 for k, v in t.items()}, "no tensor of numbers"),
    "too large": (lambda t: {k: v * 1e30 for k, v in t.items()}, "NaN or infinite"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_merged(name: str, pipeline: Pipeline, tmp_path: Path) -> None:
    tensors = {
        f"unet.{QUERY}.lora_A.default.weight": torch.ones(2, 8),
        f"unet.{QUERY}.lora_B.default.weight": torch.ones(8, 2),
    }
    change, word = BAD[name]
    said = message(pipeline, change(tensors), tmp_path / "lora.safetensors")
    assert word in said
    assert "does not belong" not in said


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "C64", "BOOL", "NONE"])
def test_types_of_numbers_that_are_not_read(dtype: str, pipeline: Pipeline, tmp_path: Path) -> None:
    """Of a file written by hand; the reader's own refusals are errors of ours, too."""
    bits = {"F4": 4, "F6_E2M3": 6, "C64": 64}.get(dtype, 8)
    header, at = {}, 0
    for name, shape in ((f"unet.{QUERY}.lora_A.weight", [2, 8]), (f"unet.{QUERY}.lora_B.weight", [8, 2])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + 2 * bits]}
        at += 2 * bits
    text = json.dumps(header).encode()
    (tmp_path / "lora.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\x7f" * at)
    with pytest.raises(DataError) as caught:
        apply_lora(pipeline, tmp_path / "lora.safetensors")
    assert "does not belong" not in caught.value.message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_types_of_numbers_that_are_read(dtype: torch.dtype, pipeline: Pipeline, tmp_path: Path) -> None:
    down, up = torch.full((2, 8), 0.5).to(dtype), torch.ones(8, 2).to(dtype)
    tensors = {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    have = weights_of(apply_lora(pipeline, tmp_path / "lora.safetensors"))["unet"][f"{QUERY}.weight"]
    torch.testing.assert_close(have, weights_of(pipeline)["unet"][f"{QUERY}.weight"] + 1)


@pytest.mark.parametrize(
    "names", [[f"lora_unet_{i}.alpha" for i in range(60_000)], ["lora_unet_" + ".lora_A." * 100_000]]
)
def test_names_without_end(names: list[str], tmp_path: Path) -> None:
    save_file({name: torch.ones(1) for name in names}, tmp_path / "lora.safetensors")
    started = time.process_time()
    with pytest.raises(DataError, match="is no LoRA of Stable Diffusion"):
        register_source(str(tmp_path / "lora.safetensors"), None)
    assert time.process_time() - started < 5


def test_a_base_is_blamed_where_it_is_another(pipeline: Pipeline, tmp_path: Path) -> None:
    """A module that this network lacks and others have; factors of Stable Diffusion 1's size."""
    deep = "lora_unet_input_blocks_7_1_transformer_blocks_0_attn2_to_q"
    tensors = {f"{deep}.lora_down.weight": torch.ones(1, 8), f"{deep}.lora_up.weight": torch.ones(8, 1)}
    assert "does not belong to this model" in message(pipeline, tensors, tmp_path / "lora.safetensors")
    key = f"unet.{QUERY.replace('to_q', 'to_k')}"
    tensors = {f"{key}.lora_A.weight": torch.ones(1, 768), f"{key}.lora_B.weight": torch.ones(8, 1)}
    said = message(pipeline, tensors, tmp_path / "lora.safetensors")
    assert "does not belong to this model" in said
    assert "it seems to be for Stable Diffusion 1.x" in said
    tensors = {
        f"unet.{QUERY}.lora_A.weight": torch.ones(8, 2),
        f"unet.{QUERY}.lora_B.weight": torch.ones(2, 8),
    }
    assert "is added to [8, 8]" in message(pipeline, tensors, tmp_path / "lora.safetensors")  # transposed


def test_a_scale_that_nobody_says_is_told(pipeline: Pipeline, tmp_path: Path) -> None:
    plain = written(pipeline, "unet", QUERY, f"unet.{QUERY}.lora_A", tmp_path / "lora.safetensors")
    assert apply_lora(pipeline, plain).notes == pipeline.notes
    named = f"base_model.model.{QUERY}.lora_A.default"
    (note,) = apply_lora(pipeline, written(pipeline, "unet", QUERY, named, plain)).notes[
        len(pipeline.notes) :
    ]
    assert "says no alpha" in note


def test_names_that_are_no_factors() -> None:
    for name in (
        "unet.conv_in.weight",
        "lora_A.weight",
        "to_q.lora_A.bias",
        "to_q.lora_E",
        "a.lora_mid.weight",
    ):
        assert read_name(name) is None, name
    assert not is_lora(["model.diffusion_model.input_blocks.0.0.weight"])
    assert Modules({"unet": [QUERY], "text_encoder": [TEXT]}).find(f"text_encoder.{QUERY}", "unet") is None
