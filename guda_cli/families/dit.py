"""DiT: a class-conditional transformer on a VAE's latents, which reads the number of a class and no text."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints.pipeline_parts import DIFFUSERS, Part
from guda_cli.errors import DataError, RecipeError, UsageError
from guda_cli.families.diffusers_pipeline import BESIDE, SETTINGS, PipelineFamily
from guda_cli.families.family import CLASS, Taken, Traits, Wanted
from guda_cli.sections import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.checkpoints.pipeline_sources import Found
    from guda_cli.diffusion.prompt_bank import PromptBank
    from guda_cli.diffusion.schedule import Schedule
    from guda_cli.diffusion.weight_file import PackedWeights

LABELS, NAMES = "labels", "id2label"
"""What a network's adapter needs: which of its classes each group is; and what a pipeline calls them."""
_OLD_CLASS = "Transformer2DModel"  # as pipelines of before 2024 name the network


class ClassDenoiser:
    """A network of DiT; see `Denoiser`. `predict` takes indices int64 [N] of the groups in sorted order.

    Of its output, the prediction and a variance, only the first C channels are used.
    """

    def __init__(self, network: torch.nn.Module, schedule: Schedule) -> None:
        import torch

        self.network, self.schedule = network, schedule
        first = next(network.parameters())
        self.dtype, self.device = first.dtype, first.device
        own: list[int] = list(network.beside[LABELS])  # type: ignore[index]
        self.null: int | None = len(own)
        """Index of the null class, which comes after the groups."""
        config: Mapping[str, Any] = network.config  # type: ignore[assignment]
        last = int(config["num_embeds_ada_norm"])
        self.labels = torch.tensor([*own, last], device=self.device)

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`."""
        import torch

        if cond is None:
            cond = torch.full_like(t, len(self.labels) - 1)
        if cond.shape != t.shape or cond.dtype != torch.int64:
            raise ValueError(
                f"class labels must be int64 {list(t.shape)}, not {cond.dtype} {list(cond.shape)}"
            )
        labels = self.labels[cond.to(self.device)]
        out: Tensor = self.network(x_t.to(self.dtype), t - 1, class_labels=labels, return_dict=False)[0]
        return out[:, : x_t.shape[1]].float()


class DiT(PipelineFamily):
    """Latent class-conditional diffusion with a transformer (Peebles & Xie 2023); the classes are groups."""

    name = "dit"
    prompts = False
    package, extra = "", ""
    network = "transformer"
    pipelines = ("DiTPipeline",)
    pipeline_class = "diffusers.pipelines.dit.pipeline_dit:DiTPipeline"
    network_class = "diffusers.models.transformers.dit_transformer_2d:DiTTransformer2DModel"
    texts = ()
    limits: ClassVar = {}
    settings = (NAMES,)

    def told(self, recipe: Recipe) -> str:
        """See `Family`."""
        return CLASS

    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        """See `Family`."""
        return Traits(CLASS, null=True, attention=True)

    def null_class(self, config: Mapping[str, Any], count: int) -> int | None:
        """See `Family`."""
        return count

    def check_recipe(self, recipe: Recipe) -> None:
        """See `Family`."""
        if not recipe.model.class_conditional:
            raise RecipeError(
                "model.family: dit needs model.class_conditional: true",
                why="its network is told each image's group, as its class",
                fix="--set model.class_conditional=true",
            )
        if recipe.model.text_conditional:
            raise RecipeError("model.text_conditional and model.class_conditional exclude each other")

    def embed(self, *_: Any) -> Any:
        """See `PipelineFamily`: there are no prompts."""
        raise DataError(f"{self.name} models read no prompts")

    def build(self, config: Mapping[str, Any], seed: int) -> torch.nn.Module:
        """See `Family`; which images are shown without their class is for training to say."""
        network = super().build(config, seed)
        for module in network.modules():
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0  # type: ignore[assignment]
        return network

    def denoiser(
        self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None = None
    ) -> ClassDenoiser:
        """See `Family`."""
        return ClassDenoiser(network, schedule)

    def read_scheduler(self, config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """See `PipelineFamily`: any that shares a DDPM's betas."""
        from guda_cli.checkpoints.scheduler_file import checked_scheduler

        return checked_scheduler(config, where)

    @property
    def indexed_part(self) -> Part:
        """See `PipelineFamily`: under its name of before 2024, too."""
        own = self.network_part
        return Part(own.name, DIFFUSERS, (*own.classes, _OLD_CLASS))

    def read_network(self, folder: Path) -> tuple[PackedWeights, dict[str, Any]]:
        """See `PipelineFamily`; what only other networks of the older class had is left out."""
        from guda_cli import plugins

        weights, config = super().read_network(folder)
        known = inspect.signature(plugins.at(self.network_class).__init__).parameters
        return weights, {key: value for key, value in config.items() if key in known}

    def check_network(self, config: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """See `PipelineFamily`."""
        channels = config.get("in_channels", 4)
        if config.get("out_channels") not in (None, channels, 2 * channels):
            raise DataError(
                f"{where}: the network has {config['out_channels']} output channels for {channels} input "
                "channels",
                why="it puts out a prediction, and perhaps a variance of as many channels",
            )
        return ()

    def check_source(self, found: Found) -> None:
        """See `PipelineFamily`."""
        if found.adapter:
            raise UsageError(
                f"{found.adapter} is an adapter, and there are none of {self.name} models",
                why="DiTPipeline of diffusers reads none",
                fix="merge it with the network and give the folder of the pipeline",
            )

    def _check_fits(
        self, config: Mapping[str, Any], vae: Mapping[str, Any], wanted: Wanted
    ) -> tuple[str, ...]:
        warnings = super()._check_fits(config, vae, wanted)
        channels, latent = config.get("in_channels", 4), vae.get("latent_channels", 4)
        if channels != latent:
            raise DataError(
                f"the transformer reads {channels} channels, the VAE's latents have {latent}",
                why="they are of different models",
            )
        side = int(config.get("sample_size", 32)) * self.scale(vae)
        if side != wanted.shape[1]:
            raise DataError(
                f"the pipeline makes images of {side} x {side}, the recipe gives "
                f"{wanted.shape[1]} x {wanted.shape[1]}",
                why="its network knows where a patch lies by its number",
                fix=f"--set data.size={side}",
            )
        return warnings

    def _take(self, found: Found, wanted: Wanted) -> Taken:
        taken = super()._take(found, wanted)
        groups, network = sorted(wanted.groups), dict(taken.config[self.network])
        wanted.check_one_group()
        names = json.loads(bytes(taken.parts[SETTINGS])).get(NAMES) or {}
        count = int(network.get("num_embeds_ada_norm", 1000))
        labels, note = _labels(groups, count, names, trained=wanted.trained)
        network[BESIDE] = {LABELS: labels}
        config = {**taken.config, self.network: network, "classes": groups}
        return dataclasses.replace(taken, config=config, notes=(*taken.notes, note))


def _labels(
    groups: list[str], count: int, names: Mapping[str, str], *, trained: bool
) -> tuple[list[int], str]:
    """Which of the network's `count` classes each group is, and a sentence on how that was found.

    By the pipeline's own `names`; else in order, where there are as many, or where the network is yet to be
    `trained` on these groups. DataError for others.
    """
    known = {name.strip(): int(key) for key, value in names.items() for name in str(value).split(",")}
    found = [known[name] for name in groups if name in known and 0 <= known[name] < count]
    if len(set(found)) == len(groups):
        return found, "its classes are told by the pipeline's own names of them (id2label)"
    if len(groups) == count:
        return list(range(count)), "its classes are taken to be, in this order: " + ", ".join(groups)
    if len(groups) > count or trained:
        raise DataError(
            f"the network has {count} classes, the data have {len(groups)} groups",
            why="class i is the i-th group in sorted order, unless the pipeline names its classes (id2label) "
            "as the groups are named",
            fix="choose the data's groups so that they are the network's classes (data.group, data.groups)",
        )
    return list(range(len(groups))), f"the groups take the places of the first {len(groups)} of its classes"
