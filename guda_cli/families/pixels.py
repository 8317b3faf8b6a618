"""Pixels: a diffusers `UNet2DModel` on the images themselves, unconditional or told each image's class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.checkpoints.components import PartsRead
from guda_cli.checkpoints.supported import side
from guda_cli.errors import DataError
from guda_cli.families.family import CLASS, Family, Taken, Traits, Wanted
from guda_cli.families.unet_recipe import check_blocks
from guda_cli.sections import Recipe, network_settings, to_dict

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.prompt_bank import PromptBank
    from guda_cli.diffusion.schedule import Schedule

NETWORK = "diffusers.models.unets.unet_2d:UNet2DModel"


class UNetDenoiser:
    """Adapter of a `UNet2DModel`; see `Denoiser`.

    Models with learned variance put 2C channels out; only the first C, the prediction, are used.
    The last of `num_class_embeds` classes is the null class (Ho & Salimans 2022) unless the
    configuration says `null_class: false`.
    """

    def __init__(self, network: torch.nn.Module, schedule: Schedule) -> None:
        first = next(network.parameters())
        self.network, self.schedule, self.device = network, schedule, first.device
        self.dtype = first.dtype
        config = getattr(network, "config", {})
        self.embeddings: int | None = config.get("num_class_embeds")
        """Number of class embeddings, the null class included; None for an unconditional network."""
        has_null = self.embeddings is not None and config.get("null_class", True)
        self.null: int | None = self.embeddings - 1 if self.embeddings and has_null else None
        """Index of the null class; None where there is none."""

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`; `cond` are class indices int64 [N]."""
        labels = {} if self.embeddings is None and cond is None else {"class_labels": self._labels(t, cond)}
        out: Tensor = self.network(x_t.to(self.dtype), t - 1, return_dict=False, **labels)[0]
        return out[:, : x_t.shape[1]].float()

    def _labels(self, t: Tensor, cond: Tensor | None) -> Tensor:
        import torch

        if self.embeddings is None:
            raise ValueError("a condition was given to an unconditional network")
        if cond is None:
            if self.null is None:
                raise ValueError("this network has no null class: every image needs a class")
            return torch.full_like(t, self.null)
        if cond.shape != t.shape or cond.dtype != torch.int64:
            raise ValueError(
                f"class labels must be int64 {list(t.shape)}, not {cond.dtype} {list(cond.shape)}"
            )
        return cond.to(self.device)


class Pixels(Family):
    """Images as they are, in [-1, 1]."""

    name = "pixels"
    network = "unet"

    def configs(
        self, recipe: Recipe, shape: tuple[int, int, int], groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        """See `Family`.

        A class-conditional one has a class a group, in sorted order, and the null class last; `null_class`
        is false where training never shows an image without its class.
        """
        unet = network_settings(recipe)
        unet |= {"sample_size": shape[1], "in_channels": shape[0], "out_channels": shape[0]}
        scheduler = {**to_dict(recipe.diffusion), "clip_sample": True, "variance_type": "fixed_small"}
        if not recipe.model.class_conditional:
            return {"unet": unet, "scheduler": scheduler}
        classes = sorted(groups)
        unet["num_class_embeds"] = len(classes) + 1
        if recipe.train.class_dropout == 0:
            unet["null_class"] = False
        return {"unet": unet, "scheduler": scheduler, "classes": classes}

    def check_recipe(self, recipe: Recipe) -> None:
        """See `Family`."""
        check_blocks(recipe, recipe.data.size, "data.size")

    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        """See `Family`."""
        blocks = (*config.get("down_block_types", ()), *config.get("up_block_types", ()))
        attention = any("Attn" in block for block in blocks) or bool(config.get("add_attention", True))
        null = told == CLASS and bool(config.get("null_class", True))
        return Traits(told, null, attention, bool(config.get("cross_attention_dim")), blocks)

    def build(self, config: Mapping[str, Any], seed: int) -> torch.nn.Module:
        """See `Family`."""
        from guda_cli.diffusion.networks import build

        return build(NETWORK, config, seed)

    def denoiser(
        self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None = None
    ) -> UNetDenoiser:
        """See `Family`."""
        return UNetDenoiser(network, schedule)

    def take(self, source: str, beside: str | None, wanted: Wanted) -> Taken:
        """See `Family`; a `DDPMPipeline` folder, or that of a bare `UNet2DModel`, its schedule `beside`."""
        from guda_cli.checkpoints.pixel_folder import open_folder
        from guda_cli.diffusion.weight_file import PackedWeights

        folder = open_folder(source)
        classes = _classes(folder.config, wanted)
        scheduler, notes, warnings = folder.scheduler(beside, to_dict(wanted.recipe.diffusion))
        _check_fits(folder.config, wanted.shape)
        network = {k: v for k, v in folder.config.items() if not k.startswith("_")}
        config: dict[str, Any] = {"unet": network, "scheduler": scheduler}
        if classes:
            config["classes"] = classes
            has_null = bool(network.get("null_class", True))
            network["null_class"] = network["num_class_embeds"] > len(classes) and has_null
            notes = (*notes, "its classes are taken to be, in this order: " + ", ".join(classes))
        weights, said = folder.weights()
        facts = {"classes": config.get("classes"), "null_class": network.get("null_class")}
        return Taken(
            PackedWeights(weights, f"{folder.unet}: the network", single=True),
            config,
            self.schedule(scheduler),
            facts=facts,
            notes=(*said, *notes),
            warnings=warnings,
        )

    def taken_over(self, recipe: Recipe, facts: Mapping[str, Any]) -> Recipe:
        """See `Family`: class-conditional where the model is."""
        conditional = bool(facts.get("classes"))
        model = dataclasses.replace(recipe.model, class_conditional=conditional)
        if conditional and not facts.get("null_class"):  # nothing to show instead of a class
            recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, class_dropout=0.0))
        return dataclasses.replace(recipe, model=model)

    def write(self, folder: Path, weights: Weights, config: Mapping[str, Any], parts: PartsRead) -> None:
        """See `Family`: a `DDPMPipeline`."""
        from safetensors.torch import save_file

        for part in ("unet", "scheduler"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        index = {
            "_class_name": "DDPMPipeline",
            "unet": ["diffusers", "UNet2DModel"],
            "scheduler": ["diffusers", "DDPMScheduler"],
        }
        # the metadata are what diffusers' loader asks for
        save_file(dict(weights), folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        documents = {
            "model_index.json": index,
            "unet/config.json": {"_class_name": "UNet2DModel", **config["unet"]},
            "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", **config["scheduler"]},
        }
        for name, document in documents.items():
            text = json.dumps(document, indent=2, sort_keys=True) + "\n"
            (folder / name).write_text(text, encoding="utf-8")


def _classes(unet: Mapping[str, Any], wanted: Wanted) -> list[str] | None:
    """The groups in sorted order, taken for the classes of a class-conditional network; None for others."""
    count = unet.get("num_class_embeds")
    if count is None:
        return None
    groups = sorted(wanted.groups)
    if count not in (len(groups), len(groups) + 1):
        raise DataError(
            f"the network has {count} classes, the data have {len(groups)} groups",
            why="class i is the i-th group in sorted order; one more is the null class",
            fix="choose the data's groups so that they are the network's classes (data.group, data.groups)",
        )
    wanted.check_one_group()
    return groups


def _check_fits(unet: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
    channels, size, _ = shape
    wanted = unet.get("in_channels") or 3, side(unet, "the network")
    if wanted[0] != channels or (wanted[1] is not None and wanted[1] != size):
        raise DataError(
            f"the model takes {wanted[0]} x {wanted[1]} x {wanted[1]} images, the recipe gives "
            f"{channels} x {size} x {size}",
            fix=f"--set data.channels={wanted[0]} --set data.size={wanted[1]}",
        )
    if unet.get("out_channels", channels) not in (channels, 2 * channels):
        raise DataError(
            f"the network has {unet.get('out_channels')} output channels for {channels} input channels"
        )
