"""Models distilled to a few steps are warned of, by name and by configuration, and ordinary ones are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from guda_cli.checkpoints.distilled import distilled, mark_of_name
from guda_cli.errors import DataError
from guda_cli.families import known
from tests.families import tiny_pipelines
from tests.families.test_dit import RECIPE as CLASSES
from tests.families.test_dit import saved
from tests.families.test_pipelines_of_diffusers import RECIPE, taken
from tests.text_to_image.fixtures import cli, one_thread, paint
from tests.workflow.fixtures import Cli

__all__ = ["cli", "one_thread", "saved"]
TRAILING = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("place", "mark"),
    [
        ("stabilityai/sdxl-turbo", "Turbo"),
        ("stabilityai/sd-turbo", "Turbo"),
        ("stabilityai/stable-diffusion-3.5-large-turbo", "Turbo"),
        ("Tongyi-MAI/Z-Image-Turbo", "Turbo"),
        ("/models/sd_xl_turbo_1.0_fp16.safetensors", "Turbo"),
        ("/models/dreamshaperXL_v21TurboDPMSDE.safetensors", "Turbo"),
        ("SDXLTurbo", "Turbo"),
        ("sdxlturbo", "Turbo"),
        ("/models/SDXL-TURBO/", "Turbo"),
        ("/models/sdxl-turbo/unet", "Turbo"),
        ("/models/sdxl-turbo/unet/diffusion_pytorch_model.safetensors", "Turbo"),
        ("/cache/models--stabilityai--sdxl-turbo/snapshots/0123abc", "Turbo"),
        ("ByteDance/SDXL-Lightning", "Lightning"),
        ("sdxl_lightning_4step_lora.safetensors", "Lightning"),
        ("lightx2v/Qwen-Image-Lightning", "Lightning"),
        ("juggernautXL_v9Rdphoto2Lightning.safetensors", "Lightning"),
        ("black-forest-labs/FLUX.1-schnell", "schnell"),
        ("flux1-schnell.safetensors", "schnell"),
        ("latent-consistency/lcm-sdxl", "LCM"),
        ("LCM_Dreamshaper_v7", "LCM"),
        ("h1t/TCD-SDXL-LoRA", "TCD"),
        ("tianweiy/DMD2", "DMD"),
        ("dmd2_sdxl_4step_unet_fp16.safetensors", "DMD"),
        ("ByteDance/Hyper-SD", "Hyper-SD"),
        ("Hyper-FLUX.1-dev-8steps-lora.safetensors", "Hyper-SD"),
        ("Hyper-SDXL-1step-lora.safetensors", "Hyper-SD"),
        ("realisticVisionV60B1_v51HyperVAE.safetensors", "Hyper-SD"),
        ("sdxl-4step-unet", "a few steps"),
        ("flux-8-steps", "a few steps"),
        ("stabilityai/stable-diffusion-xl-base-1.0", None),
        ("black-forest-labs/FLUX.1-dev", None),
        ("Tongyi-MAI/Z-Image", None),
        ("Qwen/Qwen-Image", None),
        ("photo-turbos", None),
        ("turbocharged-cars", None),
        ("turbot", None),
        ("/home/turbo/models/my-sdxl", None),
        ("turbo/my-sdxl", None),
        ("hyperrealism-lora", None),
        ("hyper-realistic-portraits", None),
        ("enlightning", None),
        ("dmdx", None),
        ("checkpoint-400-steps", None),
        ("checkpoint-14-steps", None),
        ("pipeline", None),
        ("", None),
    ],
)
def test_a_name_says_so_in_whole_words(place: str, mark: str | None) -> None:
    assert mark_of_name(place) == mark


@pytest.mark.parametrize(
    ("family", "network", "scheduler", "says"),
    [
        ("flux", {"guidance_embeds": False}, {}, "FLUX.1-schnell"),
        ("flux", {}, {}, "FLUX.1-schnell"),
        ("flux", {"guidance_embeds": True}, {}, None),
        ("sd3", {"guidance_embeds": False}, {}, None),
        ("sdxl", {}, TRAILING, "SDXL-Turbo"),
        ("stable-diffusion", {}, {**TRAILING, "_class_name": "EulerDiscreteScheduler"}, "SD-Turbo"),
        ("sdxl", {}, {**TRAILING, "timestep_spacing": "leading"}, None),
        ("sdxl", {}, {**TRAILING, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, None),
        ("sdxl", {}, {**TRAILING, "prediction_type": "v_prediction"}, None),
        ("stable-diffusion", {}, {**TRAILING, "_class_name": "DDIMScheduler"}, None),
        ("pixels", {}, {}, None),
    ],
)
def test_a_configuration_says_so(family: str, network: Any, scheduler: Any, says: str | None) -> None:
    found = distilled(family, ["mine"], network, scheduler)
    assert (found is None) if says is None else (says in str(found))


@pytest.mark.parametrize("family", list(known.FAMILIES))
def test_the_base_is_named_where_there_is_one(family: str) -> None:
    found = str(distilled(family, ["x/my-turbo"], {}, {}))
    assert "no faithful ELBO" in found
    assert "Turbo is in the name of x/my-turbo" in found
    assert ("take its base" in found) == (family not in ("pixels", "dit"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sdxl", "LCMScheduler"), ("sdxl", "TCDScheduler"), ("flux", "FlowMatchLCMScheduler")],
)
def test_their_schedulers_are_refused(family: str, scheduler: str, tmp_path: Path) -> None:
    folder = tiny_pipelines.save(family, tmp_path)
    change(folder / "scheduler" / "scheduler_config.json", _class_name=scheduler)
    with pytest.raises(DataError, match=scheduler) as caught:
        taken(family, folder, None)
    assert "distilled" in caught.value.why


def test_a_network_that_reads_the_guidance_scale_is_refused(tmp_path: Path) -> None:
    folder = tiny_pipelines.save("sdxl", tmp_path)
    with pytest.raises(DataError, match="time_cond_proj_dim") as caught:
        known.FAMILIES["sdxl"].check_network(  # type: ignore[attr-defined]
            {"addition_embed_type": "text_time", "time_cond_proj_dim": 256}, str(folder)
        )
    assert "LCM" in caught.value.why


@pytest.mark.parametrize("options", [(), ("--as-is",)])
def test_training_from_one_warns(
    options: tuple[str, ...], cli: Cli, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings", captions=False)
    (tmp_path / "my.yaml").write_text(CLASSES)
    shutil.copytree(saved, tmp_path / "dit-turbo")
    told = cli("train", "my.yaml", "--from", "dit-turbo", *options).stderr
    assert "distilled to a few steps (Turbo is in the name of dit-turbo)" in " ".join(told.split())
    shutil.copytree(saved, tmp_path / "plain")
    told = cli("train", "my.yaml", "--from", "plain", *options).stderr
    assert "distilled" not in told


def test_flux_without_guidance_warns(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings")
    (tmp_path / "my.yaml").write_text(RECIPE)
    folder = tiny_pipelines.save("flux", tmp_path / "made", guidance=False)
    told = cli("train", "my.yaml", "--from", str(folder), "--as-is").stderr
    assert "take its base, black-forest-labs/FLUX.1-dev" in " ".join(told.split())
