"""LoRA files merged by us and by diffusers: the same weights under every naming; the rest is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.lora_file import apply_lora
from guda_cli.checkpoints.model_source import register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.noise import generator
from guda_cli.errors import DataError, UsageError

RANK, ALPHA = 2, 3.0
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
UNET = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_k", f"{ATTENTION}.to_v", f"{ATTENTION}.to_out.0")
CONVOLUTIONS = ("down_blocks.0.attentions.0.proj_in", "up_blocks.1.resnets.0.conv1")
TEXT = tuple(f"encoder.layers.1.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))

Factors = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]
Naming = Callable[[Factors], Weights]


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


def weights_of(pipeline: Pipeline) -> dict[str, Weights]:
    return {
        "unet": networks.from_bytes(bytes(pipeline.unet)),
        "text_encoder": networks.from_bytes(bytes(pipeline.components.text_encoder)),
    }


def factors(pipeline: Pipeline, unet: tuple[str, ...], text: tuple[str, ...] = ()) -> Factors:
    """Random down [r, i, ...] and up [o, r, ...] factors of the modules named."""
    weights, out = weights_of(pipeline), {}
    for part, modules in (("unet", unet), ("text_encoder", text)):
        for module in modules:
            shape = weights[part][f"{module}.weight"].shape
            rng = generator("test.lora", part, module)
            down = torch.randn(RANK, *shape[1:], generator=rng)
            up = torch.randn(shape[0], RANK, *(1 for _ in shape[2:]), generator=rng)
            out[part, module] = down, up
    return out


def dotted(down: str, up: str, text: str = "") -> Naming:
    def name(found: Factors) -> Weights:
        out = {}
        for (part, module), (low, high) in found.items():
            place = f"{part}.{'text_model.' if part == 'text_encoder' else ''}{module}"
            ends = (
                end.replace(".lora", text) if text and part == "text_encoder" else end for end in (down, up)
            )
            out |= dict(zip((f"{place}{end}.weight" for end in ends), (low, high), strict=True))
        return out

    return name


def processors(found: Factors) -> Weights:
    """diffusers' first names: to_q_lora below the attention's processor; the text encoder's likewise."""
    out = {}
    for (part, module), (low, high) in found.items():
        head, _, leaf = module.removesuffix(".0").rpartition(".")
        if part == "unet":
            place = f"unet.{head}.processor.{leaf}_lora"
        else:
            short = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}[leaf]
            place = f"text_encoder.text_model.{head}.{short}_lora"
        out |= {f"{place}.down.weight": low, f"{place}.up.weight": high}
    return out


def kohya(found: Factors) -> Weights:
    out = {}
    for (part, module), (low, high) in found.items():
        place = ("lora_unet_" if part == "unet" else "lora_te_text_model_") + module.replace(".", "_")
        out |= {
            f"{place}.lora_down.weight": low,
            f"{place}.lora_up.weight": high,
            f"{place}.alpha": torch.tensor(ALPHA),
        }
    return out


NAMINGS: dict[str, tuple[Naming, tuple[str, ...], float]] = {
    "peft": (dotted(".lora_A", ".lora_B"), UNET + CONVOLUTIONS, 1.0),
    "diffusers": (dotted(".lora.down", ".lora.up", text=".lora_linear_layer"), UNET + CONVOLUTIONS, 1.0),
    "processors": (processors, UNET, 1.0),
    "kohya": (kohya, UNET + CONVOLUTIONS, ALPHA / RANK),
}


def write(tensors: Weights, path: Path, **metadata: str) -> Path:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata or None)
    return path


def fused(saved: Path, path: Path) -> dict[str, Weights]:
    """The weights after diffusers has loaded and merged the file at `path`."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(saved, safety_checker=None, use_safetensors=True)
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return {"unet": pipe.unet.state_dict(), "text_encoder": pipe.text_encoder.state_dict()}


def assert_close(have: dict[str, Weights], want: dict[str, Weights]) -> None:
    for part, weights in want.items():
        names = {name.removeprefix("text_model."): value for name, value in weights.items()}
        assert have[part].keys() == names.keys()
        for name, value in names.items():
            torch.testing.assert_close(have[part][name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("naming", list(NAMINGS))
def test_as_diffusers_merges_it(naming: str, pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    name, modules, _ = NAMINGS[naming]
    path = write(name(factors(pipeline, modules, TEXT)), tmp_path / "lora.safetensors")
    have = weights_of(apply_lora(pipeline, path))
    assert_close(have, fused(saved, path))
    base = weights_of(pipeline)
    for part, changed in (("unet", modules), ("text_encoder", TEXT)):
        moved = {n for n in base[part] if not torch.equal(base[part][n], have[part][n])}
        assert moved == {f"{module}.weight" for module in changed}


@pytest.mark.parametrize("naming", list(NAMINGS))
def test_by_the_formula(naming: str, pipeline: Pipeline, tmp_path: Path) -> None:
    name, modules, scale = NAMINGS[naming]
    found = factors(pipeline, modules)
    path = write(name(found), tmp_path / "lora.safetensors")
    made = apply_lora(pipeline, path)
    have, base = weights_of(made)["unet"], weights_of(pipeline)["unet"]
    for (_, module), (down, up) in found.items():
        product = torch.einsum("or,r...->o...", up.flatten(1), down)
        torch.testing.assert_close(have[f"{module}.weight"], base[f"{module}.weight"] + scale * product)
    assert made.components is pipeline.components


def metadata(rank_stabilised: bool) -> dict[str, Any]:
    entries = {"r": RANK, "lora_alpha": 8, "alpha_pattern": {UNET[0]: 5}, "use_rslora": rank_stabilised}
    entries["target_modules"] = list(UNET)
    return {f"unet.{key}": value for key, value in entries.items()}


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_scales_from_the_files_metadata(
    rank_stabilised: bool, pipeline: Pipeline, saved: Path, tmp_path: Path
) -> None:
    found = factors(pipeline, UNET)
    content = json.dumps(metadata(rank_stabilised))
    path = write(
        dotted(".lora_A", ".lora_B")(found),
        tmp_path / "lora.safetensors",
        lora_adapter_metadata=content,
        format="pt",
    )
    have = weights_of(apply_lora(pipeline, path))
    assert_close(have, fused(saved, path))
    down, up = found["unet", UNET[1]]
    scale = 8 / (math.sqrt(RANK) if rank_stabilised else RANK)
    wanted = weights_of(pipeline)["unet"][f"{UNET[1]}.weight"] + scale * up @ down
    torch.testing.assert_close(have["unet"][f"{UNET[1]}.weight"], wanted)


def test_a_folder_of_peft(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    """peft's own save_pretrained: base_model.model names, alpha in adapter_config.json beside the file."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    unet = UNet2DConditionModel.from_pretrained(saved / "unet", use_safetensors=True)
    config = LoraConfig(r=RANK, lora_alpha=7, target_modules=["to_q", "conv1"], init_lora_weights=False)
    model = get_peft_model(unet, config)
    model.save_pretrained(tmp_path / "adapter")
    have = weights_of(register_source(str(tmp_path / "adapter"), str(saved)))["unet"]
    want = model.merge_and_unload().state_dict()
    for name, value in want.items():
        torch.testing.assert_close(have[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(
        have["mid_block.resnets.0.conv1.weight"],
        weights_of(pipeline)["unet"]["mid_block.resnets.0.conv1.weight"],
    )


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_saves_a_folder_a_part(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    """As training scripts do with peft: unet/ and text_encoder/, each with names that do not say which."""
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPTextModel

    text = CLIPTextModel.from_pretrained(saved / "text_encoder", use_safetensors=True)
    config = LoraConfig(r=RANK, lora_alpha=5, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(text, config)
    model.save_pretrained(tmp_path / "adapter" / "text_encoder")
    test_a_folder_of_peft(pipeline, saved, tmp_path / "one")
    (tmp_path / "one" / "adapter").rename(tmp_path / "adapter" / "unet")
    made, before = weights_of(register_source(str(tmp_path / "adapter"), str(saved))), weights_of(pipeline)
    want = {
        name.removeprefix("text_model."): value
        for name, value in model.merge_and_unload().state_dict().items()
    }
    for name, value in made["text_encoder"].items():
        torch.testing.assert_close(value, want[name], rtol=1e-5, atol=1e-6, msg=name)
    for part in made:
        assert any(not torch.equal(made[part][name], before[part][name]) for name in made[part]), part
    with pytest.raises(UsageError, match="a LoRA needs the pipeline"):
        register_source(str(tmp_path / "adapter"), None)


def refused(path: Path, pipeline: Pipeline) -> str:
    with pytest.raises(DataError) as caught:
        apply_lora(pipeline, path)
    return f"{caught.value.message} | {caught.value.why} | {caught.value.fix}"


def test_tensors_that_fit_nowhere_are_named(pipeline: Pipeline, tmp_path: Path) -> None:
    found = kohya(factors(pipeline, UNET))
    strange = {
        f"lora_te_text_model_encoder_layers_{i}_fc.lora_down.weight": torch.zeros(2, 2) for i in range(5)
    }
    said = refused(write({**found, **strange}, tmp_path / "lora.safetensors"), pipeline)
    assert "the LoRA does not belong to this model" in said
    assert "lora_te_text_model_encoder_layers_0_fc.lora_down.weight" in said
    assert "and 2 more" in said


@pytest.mark.parametrize(
    "ending", ["dora_scale", "hada_w1_a", "lokr_w1", "lora_mid.weight", "diff", "oft_blocks"]
)
def test_other_kinds_of_update(ending: str, pipeline: Pipeline, tmp_path: Path) -> None:
    tensors = {**kohya(factors(pipeline, UNET)), f"lora_unet_conv_in.{ending}": torch.zeros(2, 2)}
    said = refused(write(tensors, tmp_path / "lora.safetensors"), pipeline)
    assert "not a plain LoRA" in said


def test_shapes_of_another_model(pipeline: Pipeline, tmp_path: Path) -> None:
    tensors = kohya(factors(pipeline, UNET[:1]))
    name = next(name for name in tensors if name.endswith("lora_down.weight"))
    said = refused(write({**tensors, name: torch.zeros(RANK, 9)}, tmp_path / "lora.safetensors"), pipeline)
    assert f"unet.{UNET[0]}" in said
    half = {key: value for key, value in tensors.items() if key != name}
    assert "no down factor" in refused(write(half, tmp_path / "half.safetensors"), pipeline)
    tensors[name] = torch.full_like(tensors[name], float("inf"))
    assert "NaN or infinite" in refused(write(tensors, tmp_path / "inf.safetensors"), pipeline)


def test_a_pickle(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_lora_weights.bin"
    torch.save(kohya(factors(pipeline, UNET)), path)
    assert "pickle can run any code" in refused(path, pipeline)


def test_from_a_file_over_its_base(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    path = write(kohya(factors(pipeline, UNET, TEXT)), tmp_path / "style.safetensors")
    made, wanted = register_source(str(path), str(saved)), apply_lora(pipeline, path)
    assert made.unet == wanted.unet != pipeline.unet
    assert made.components.text_encoder == wanted.components.text_encoder
    with pytest.raises(UsageError) as caught:
        register_source(str(path), None)
    assert "--base" in caught.value.fix
