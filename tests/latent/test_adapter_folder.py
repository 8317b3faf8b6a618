"""Folders of adapters: peft's folder a part, adapters one level down; none is left out in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.model_source import register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.diffusion import networks
from guda_cli.errors import DataError

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
VALUE = "encoder.layers.1.self_attn.v_proj"
MODULES = {"unet": (QUERY, 8, "to_q"), "text_encoder": (VALUE, 16, "v_proj")}


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


def peft(folder: Path, part: str) -> Path:
    """A folder as peft saves an adapter of one part; its product is the alpha of its configuration, 4."""
    module, width, target = MODULES[part]
    folder.mkdir(parents=True)
    key = f"base_model.model.{module}.lora_"
    tensors = {f"{key}A.weight": torch.ones(1, width), f"{key}B.weight": torch.ones(width, 1)}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 4, "target_modules": [target]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def difference(made: Pipeline, pipeline: Pipeline, part: str) -> torch.Tensor:
    """What was added to the module of `part` that these adapters are for."""
    one, two = (
        networks.from_bytes(bytes(each.unet if part == "unet" else each.components.text_encoder))
        for each in (made, pipeline)
    )
    name = f"{MODULES[part][0]}.weight"
    assert {key for key in one if not torch.equal(one[key], two[key])} <= {name}
    return one[name] - two[name]


def both(folder: Path) -> Path:
    for part in MODULES:
        peft(folder / part, part)
    return folder


def refused(source: Path, saved: Path) -> str:
    with pytest.raises(DataError) as caught:
        register_source(str(source), str(saved))
    error = caught.value
    assert error.exit_code == 3
    assert "does not belong" not in error.message
    return f"{error.message} | {error.why} | {error.fix}"


def test_a_folder_a_part(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    made = register_source(str(both(tmp_path / "style")), str(saved))
    for part in MODULES:
        added = difference(made, pipeline, part)
        torch.testing.assert_close(added, torch.full_like(added, 4.0))
    assert made.notes == pipeline.notes


@pytest.mark.parametrize(("given", "other"), [("unet", "text_encoder"), ("text_encoder", "unet")])
@pytest.mark.parametrize("file", [False, True])
def test_of_two_parts_one(
    given: str, other: str, file: bool, pipeline: Pipeline, saved: Path, tmp_path: Path
) -> None:
    """The one that is given is added, and a note names the other."""
    source = both(tmp_path / "style") / given
    made = register_source(str(source / "adapter_model.safetensors" if file else source), str(saved))
    assert bool((difference(made, pipeline, given).abs() > 3).all())
    assert not difference(made, pipeline, other).any()
    (note,) = made.notes[len(pipeline.notes) :]
    assert note.startswith(f"the LoRA of the {other.replace('_', ' ')} beside it was not added")
    shutil.rmtree(tmp_path / "style" / other)
    assert register_source(str(source), str(saved)).notes == pipeline.notes


@pytest.mark.parametrize("part", list(MODULES))
def test_a_part_whose_weights_cannot_be_read_is_not_left_out(part: str, saved: Path, tmp_path: Path) -> None:
    folder = both(tmp_path / "style")
    (folder / part / "adapter_model.safetensors").unlink()
    assert "no file adapter_model.safetensors beside" in refused(folder, saved)
    torch.save({}, folder / part / "adapter_model.bin")
    said = refused(folder, saved)
    assert f"{part}: the adapter has no weights in safetensors, only adapter_model.bin" in said
    assert "a pickle can run any code" in said


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_lora_weights.bin", "pytorch_lora_weights.pt"])
def test_a_folder_of_a_pickle(name: str, saved: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / name)
    assert f"only {name} | a pickle can run any code" in refused(tmp_path, saved)


def test_a_configuration_without_its_weights(saved: Path, tmp_path: Path) -> None:
    (peft(tmp_path / "style", "unet") / "adapter_model.safetensors").unlink()
    assert "the adapter has no weights in safetensors" in refused(tmp_path / "style", saved)


def test_of_two_adapters_none_is_guessed(saved: Path, tmp_path: Path) -> None:
    folder = peft(tmp_path / "style", "unet")
    shutil.copy(folder / "adapter_model.safetensors", folder / "pytorch_lora_weights.safetensors")
    said = refused(folder, saved)
    assert "more than one adapter: pytorch_lora_weights.safetensors, adapter_model.safetensors" in said
    (folder / "pytorch_lora_weights.safetensors").unlink()
    peft(folder / "unet", "unet")
    assert "more than one adapter: adapter_model.safetensors, unet/" in refused(folder, saved)


def test_an_adapter_of_a_second_text_encoder(saved: Path, tmp_path: Path) -> None:
    peft(both(tmp_path / "style") / "text_encoder_2", "text_encoder")
    assert "an adapter for Stable Diffusion XL" in refused(tmp_path / "style", saved)


def test_adapters_with_names_lie_one_level_down(saved: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    """As peft saves adapters that are not called `default`."""
    peft(tmp_path / "run" / "mill", "unet")
    said = refused(tmp_path / "run", saved)
    assert f"--from {tmp_path / 'run' / 'mill'}" in said
    assert bool(
        (difference(register_source(said.rpartition("--from ")[2], str(saved)), pipeline, "unet") > 3).all()
    )
    (tmp_path / "run" / "config.json").write_text("{}")  # then it may be a network, as before
    assert "below it" not in refused(tmp_path / "run", saved)


def test_a_renamed_file_keeps_its_settings(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    folder = peft(tmp_path / "style", "unet")
    path = (folder / "adapter_model.safetensors").rename(folder / "mill.safetensors")
    assert bool((difference(register_source(str(path), str(saved)), pipeline, "unet").round() == 4).all())
    shutil.copy(path, folder / "another.safetensors")
    assert "another.safetensors lies beside it" in refused(path, saved)


def test_settings_that_are_missing(saved: Path, tmp_path: Path) -> None:
    """peft keeps the scale in them."""
    folder = peft(tmp_path / "style", "unet")
    (folder / "adapter_config.json").unlink()
    assert "has no adapter_config.json" in refused(folder, saved)
    peft(tmp_path / "two" / "unet", "unet")
    (peft(tmp_path / "two" / "text_encoder", "text_encoder") / "adapter_config.json").unlink()
    assert "text_encoder has no adapter_config.json" in refused(tmp_path / "two", saved)


def test_a_lora_beside_a_pipeline_is_told(pipeline: Pipeline, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    file = peft(tmp_path / "style", "unet") / "adapter_model.safetensors"
    shutil.copy(file, folder / "pytorch_lora_weights.safetensors")
    made = register_source(str(folder), None)
    assert made.unet == pipeline.unet
    assert "pytorch_lora_weights.safetensors was not added" in made.notes[-1]


def test_a_lora_beside_a_network(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved / "unet", tmp_path / "network"))
    file = peft(tmp_path / "style", "unet") / "adapter_model.safetensors"
    shutil.copy(file, folder / "pytorch_lora_weights.safetensors")
    assert "has a network and an adapter" in refused(folder, saved)
