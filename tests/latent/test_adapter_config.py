"""peft's settings of a LoRA: the same weights as peft merges, or a refusal that names the setting."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guda_cli.checkpoints.adapter_config import read_config
from guda_cli.checkpoints.files import read_json
from guda_cli.checkpoints.lora_file import apply_lora
from guda_cli.checkpoints.model_source import register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.diffusion import networks
from guda_cli.diffusion.noise import generator
from guda_cli.errors import DataError

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
LINEAR = tuple(f"{ATTENTION}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0"))
CONVOLUTION = "up_blocks.1.resnets.0.conv1"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]
BASIC = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": TARGETS}


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


def adapter(
    pipeline: Pipeline, folder: Path, config: object, modules: tuple[str, ...] = LINEAR, rank: int = 2
) -> Path:
    """A folder as peft saves it, with random factors and this configuration."""
    weights, tensors = networks.from_bytes(bytes(pipeline.unet)), {}
    for module in modules:
        shape = weights[f"{module}.weight"].shape
        rng = generator("test.adapter", module)
        place = f"base_model.model.{module}.lora_"
        own = 3 if module == LINEAR[1] and rank == 0 else rank or 2
        tensors[f"{place}A.weight"] = torch.randn(own, *shape[1:], generator=rng)
        tensors[f"{place}B.weight"] = torch.randn(shape[0], own, *(1 for _ in shape[2:]), generator=rng)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter_config.json").write_text(text)
    return folder


def by_peft(saved: Path, folder: Path) -> dict[str, torch.Tensor]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from peft import PeftModel

    unet = UNet2DConditionModel.from_pretrained(saved / "unet", use_safetensors=True)
    return dict(PeftModel.from_pretrained(unet, str(folder)).merge_and_unload().state_dict())


def merged(pipeline: Pipeline, folder: Path) -> dict[str, torch.Tensor]:
    return networks.from_bytes(bytes(apply_lora(pipeline, folder / "adapter_model.safetensors").unet))


def refused(pipeline: Pipeline, folder: Path) -> str:
    path = folder if folder.suffix else folder / "adapter_model.safetensors"
    with pytest.raises(DataError) as caught:
        apply_lora(pipeline, path)
    error = caught.value
    assert error.exit_code == 3
    assert "does not belong" not in error.message
    return f"{error.message} | {error.why} | {error.fix}"


AS_PEFT: dict[str, dict[str, Any]] = {
    "alpha": {},
    "rank-stabilised": {"use_rslora": True},
    "alpha by regular expression": {"alpha_pattern": {r"attn2\.to_(q|k)": 8}},
    "alpha by name": {"alpha_pattern": {"to_v": 8, "attn2.to_q": 5}},
    "the first pattern counts": {"alpha_pattern": {r".*to_[qk]": 8, "to_q": 5, "to_k$": 1}},
    "a pattern is of a name from a dot on": {"alpha_pattern": {"o_q": 8, "ttn2.to_k": 7, ".*o_v": 5}},
    "a pattern from the beginning": {"alpha_pattern": {"^down_blocks.*": 8, "^attn2.to_q": 5}},
    "all of it by pattern": {"alpha_pattern": {"to_(q|k|v)": 6, r"to_out\.\d": 4}, "use_rslora": True},
    "dropout, layers, direction of weights": {
        "lora_dropout": 0.5,
        "fan_in_fan_out": True,
        "bias": "lora_only",
    },
    "targets as a regular expression": {"target_modules": r".*attn2\.(to_[qkv]|to_out\.0)"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "at random": {"init_lora_weights": False},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa, rank-stabilised": {"init_lora_weights": "pissa", "use_rslora": True},
    "pissa, alpha by pattern": {"init_lora_weights": "pissa", "alpha_pattern": {"to_(q|k)": 8}},
    "olora": {"init_lora_weights": "olora"},
    "olora, alpha by pattern": {"init_lora_weights": "olora", "alpha_pattern": {"to_(q|k)": 8}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(AS_PEFT))
def test_as_peft_merges_it(name: str, pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    targets = {"target_modules": TARGETS[:-1]} if "init_lora_weights" in AS_PEFT[name] else {}
    modules = LINEAR if targets or "target_modules" in AS_PEFT[name] else (*LINEAR, CONVOLUTION)
    folder = adapter(pipeline, tmp_path / "adapter", {**BASIC, **targets, **AS_PEFT[name]}, modules)
    have, base = merged(pipeline, folder), networks.from_bytes(bytes(pipeline.unet))
    for key, value in by_peft_of(saved, folder, modules).items():
        torch.testing.assert_close(have[key], value, rtol=1e-5, atol=1e-5, msg=key)
    moved = {key.removesuffix(".weight") for key in base if not torch.equal(base[key], have[key])}
    assert moved == set(modules)


def by_peft_of(saved: Path, folder: Path, modules: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """What peft makes of the modules that the file has; others of its targets keep an untrained factor."""
    found = by_peft(saved, folder)
    return {f"{module}.weight": found[f"{module}.weight"] for module in modules}


@pytest.mark.filterwarnings("ignore")
def test_ranks_by_pattern(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    config = {**BASIC, "rank_pattern": {r"attn2\.to_k": 3}, "alpha_pattern": {r"to_[kv]": 7}}
    folder = adapter(pipeline, tmp_path / "adapter", config, rank=0)
    for key, value in by_peft_of(saved, folder, LINEAR).items():
        torch.testing.assert_close(merged(pipeline, folder)[key], value, rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.filterwarnings("ignore")
def test_what_peft_saves_of_a_text_encoder(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    """Patterns may name `text_model`, which newer versions of transformers do not have."""
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPTextModel

    text = CLIPTextModel.from_pretrained(saved / "text_encoder", use_safetensors=True)
    config = LoraConfig(
        r=2,
        lora_alpha=5,
        target_modules=["q_proj", "fc1"],
        alpha_pattern={r"layers\.1\..*": 9},
        init_lora_weights=False,
    )
    model = get_peft_model(text, config)
    model.save_pretrained(tmp_path / "adapter")
    want = {
        name.removeprefix("text_model."): value
        for name, value in model.merge_and_unload().state_dict().items()
    }
    made = register_source(str(tmp_path / "adapter"), str(saved))
    assert made.unet == pipeline.unet
    have = networks.from_bytes(bytes(made.components.text_encoder))
    for name, value in have.items():
        torch.testing.assert_close(value, want[name], rtol=1e-5, atol=1e-6, msg=name)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    settings["alpha_pattern"] = {r"^text_model\.encoder\.layers\.1\..*": 9}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    again = register_source(str(tmp_path / "adapter"), str(saved))
    assert again.components.text_encoder == made.components.text_encoder


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pissa by a random method": ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
    "corda": ({"init_lora_weights": "corda", "corda_config": {"corda_method": "ipm"}}, "corda"),
    "loftq": ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "loftq"),
    "an initialisation of later versions": ({"init_lora_weights": "novel"}, "novel"),
    "lora_ga": ({"init_lora_weights": "lora_ga"}, "lora_ga"),
    "dora": ({"use_dora": True}, "DoRA"),
    "whole modules": ({"modules_to_save": ["conv_out"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    "biases of factors": ({"lora_bias": True}, "lora_bias"),
    "repeated layers": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "a variant": ({"kasa_config": {"beta": 1e-4}}, "kasa_config"),
    "a setting of later versions": ({"use_novelty": True}, "use_novelty"),
    "loha": ({"peft_type": "LOHA"}, "LoHa"),
    "adalora": ({"peft_type": "ADALORA", "target_r": 8}, "AdaLoRA"),
    "vera": ({"peft_type": "VERA"}, "VeRA"),
    "a method of later versions": ({"peft_type": "NOVEL"}, "peft's NOVEL"),
    "another rank": ({"r": 4}, "has rank 2"),
    "another rank by pattern": ({"rank_pattern": {"to_(q|k)": 3}}, "has rank 2"),
    "other modules": ({"target_modules": ["to_q", "to_k"]}, "target_modules"),
    "other modules by pattern": ({"target_modules": r".*attn1\.to_(q|k)"}, "target_modules"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_not_merged_so(name: str, pipeline: Pipeline, tmp_path: Path) -> None:
    settings, word = REFUSED[name]
    said = refused(pipeline, adapter(pipeline, tmp_path / "adapter", {**BASIC, **settings}))
    assert word.replace("has rank", "have rank") in said
    assert "adapter_config.json" in said


def test_pissa_of_a_convolution(pipeline: Pipeline, tmp_path: Path) -> None:
    config = {**BASIC, "init_lora_weights": "pissa"}
    assert "linear layers" in refused(pipeline, adapter(pipeline, tmp_path / "a", config, (CONVOLUTION,)))


WRONG = (
    {"r": "two"}, {"r": 0}, {"r": 2.0}, {"r": True}, {"r": None}, {"r": [2]},
    {"lora_alpha": "8"}, {"lora_alpha": None}, {"lora_alpha": {}}, {"lora_alpha": float("nan")},
    {"lora_alpha": 10**400}, {"lora_alpha": True},
    {"alpha_pattern": ["to_q"]}, {"alpha_pattern": {"to_q": "8"}}, {"alpha_pattern": 3},
    {"rank_pattern": {"to_q": 1.5}}, {"rank_pattern": "to_q"},
    {"use_rslora": "yes"}, {"init_lora_weights": 3}, {"init_lora_weights": ["pissa"]},
    {"target_modules": 3}, {"target_modules": [1]}, {"peft_type": 3}, {"peft_type": ["LORA"]},
    {"alpha_pattern": {"to_(q": 8}}, {"alpha_pattern": {"*": 8}}, {"target_modules": "to_["},
    {"alpha_pattern": {"(" * 5000 + ")" * 5000: 8}}, {"alpha_pattern": {"x" * 300_000: 8}},
)  # fmt: skip


@pytest.mark.parametrize("settings", WRONG, ids=lambda value: str(value)[:40])
def test_values_of_a_wrong_type(settings: dict[str, Any], pipeline: Pipeline, tmp_path: Path) -> None:
    said = refused(pipeline, adapter(pipeline, tmp_path / "adapter", {**BASIC, **settings}))
    assert "adapter_config.json" in said
    assert len(said) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"r":' * 100_000, "[1, 2]", "3", "", '{"r": 2', "\x00"])
def test_files_that_are_no_settings(text: str, pipeline: Pipeline, tmp_path: Path) -> None:
    assert "adapter_config.json" in refused(pipeline, adapter(pipeline, tmp_path / "adapter", text))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '"x"', '{"unet.r": "2"}', '{"unet.alpha_pattern": 3}'])
def test_metadata_of_diffusers_that_are_no_settings(text: str, pipeline: Pipeline, tmp_path: Path) -> None:
    folder = adapter(pipeline, tmp_path / "adapter", BASIC)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors, tmp_path / "style.safetensors", {"lora_adapter_metadata": text})
    assert "lora_adapter_metadata" in refused(pipeline, tmp_path / "style.safetensors")


def test_settings_without_end(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = adapter(pipeline, tmp_path / "adapter", BASIC)
    with (folder / "adapter_config.json").open("r+b") as file:
        file.truncate(2**22 + 1)
    assert "settings have" in refused(pipeline, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    text = json.dumps({"unet.r": 2, "x": [[]] * 2_000_000})
    save_file(tensors, tmp_path / "style.safetensors", {"lora_adapter_metadata": text})
    assert "settings have" in refused(pipeline, tmp_path / "style.safetensors")


def test_a_configuration_without_end(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**25 + 1)
    with pytest.raises(DataError, match="larger than 32 MiB"):
        read_json(tmp_path / "config.json")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("guda_cli.checkpoints.adapter_config._SECONDS", 0.5)
    return


@pytest.mark.parametrize("pattern", [r"(\w+\.?)+!", r"(.*.*)*-", r"([\w.][\w.]?)+!"])
def test_an_expression_that_takes_for_ever(
    pattern: str, hurried: None, pipeline: Pipeline, tmp_path: Path
) -> None:
    folder = adapter(pipeline, tmp_path / "adapter", {**BASIC, "alpha_pattern": {pattern: 8}})
    started = time.monotonic()
    assert "take too long" in refused(pipeline, folder)
    assert time.monotonic() - started < 10


def test_defaults_are_those_of_peft() -> None:
    from peft import LoraConfig

    ours, theirs = read_config({}, "here"), LoraConfig()
    assert (ours.r, ours.alpha, ours.rank_stabilised) == (theirs.r, theirs.lora_alpha, theirs.use_rslora)
    read_config(json.loads(json.dumps(theirs.to_dict(), default=list)), "all of peft's settings")
