"""Modules of diffusers without their packages, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

UNET = "diffusers.models.unets.unet_2d"
LATENT = ("diffusers.models.unets.unet_2d_condition", "diffusers.models.autoencoders.autoencoder_kl")


def run(code: str) -> str:
    head = "import sys\nfrom guda_cli.light_imports import light_import\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_nothing_is_loaded_that_it_does_not_need() -> None:
    heavy = "('peft', 'scipy.stats', 'torch._dynamo', 'diffusers.models.transformers.transformer_flux')"
    assert (
        run(f"print(light_import({UNET!r}).__name__, [m for m in {heavy} if m in sys.modules])")
        == f"{UNET} []"
    )


def test_nor_for_a_latent_text_to_image_model() -> None:
    heavy = "('peft', 'scipy.stats', 'torch._dynamo', 'diffusers.hooks')"
    code = f"""
names = [light_import(name).__name__ for name in {LATENT!r}]
print(len(names), [m for m in {heavy} if m in sys.modules])
"""
    assert run(code) == "2 []"


def test_what_was_imported_in_part_is_whole_for_others() -> None:
    """A pipeline of diffusers, its LoRA loaders and its schedulers, beside the light network."""
    code = f"""
Own = light_import({LATENT[0]!r}).UNet2DConditionModel
light_import({LATENT[1]!r})
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.hooks import apply_group_offloading
from diffusers.loaders import lora_base
from diffusers.schedulers import scheduling_dpmsolver_multistep as dpm
from diffusers.utils.import_utils import is_peft_available, is_scipy_available, is_transformers_available
import torch
DPMSolverMultistepScheduler(use_beta_sigmas=True).set_timesteps(4)
print(Own is UNet2DConditionModel, hasattr(lora_base, "BaseTunerLayer"), hasattr(dpm, "scipy"),
      is_peft_available(), is_scipy_available(), is_transformers_available(),
      torch.compiler.disable.__module__)
"""
    assert run(code) == "True True True True True True torch.compiler"


def test_packages_are_whole_for_who_asks_and_classes_the_same() -> None:
    code = f"""
Own = light_import({UNET!r}).UNet2DModel
import diffusers
from diffusers.models.unets import UNet2DConditionModel, UNet2DModel
from diffusers.models.transformers import Transformer2DModel
import diffusers.models.unets.unet_2d as module
import torch._dynamo
print(Own is UNet2DModel is diffusers.UNet2DModel is module.UNet2DModel, bool(torch._dynamo.disable))
"""
    assert run(code) == "True True"


def test_where_bare_packages_do_not_do_they_are_imported_whole() -> None:
    code = f"""
from guda_cli import light_imports
light_imports._PACKAGES += ("diffusers.models.attention_processor",)  # as if it were one
print(light_import({UNET!r}).UNet2DModel.__name__, "diffusers.models.unets.unet_kandinsky3" in sys.modules)
"""
    assert run(code) == "UNet2DModel True"


def test_other_modules_are_imported_as_ever() -> None:
    assert run("print(light_import('json').dumps([1]), light_import('os.path').sep)") == "[1] /"
