"""What families of latent pipelines of diffusers share; what is peculiar to each is its own file.

A subclass names its pipeline's class, its denoiser's and the components around it, how prompts become rows
and how the denoiser is asked. Everything is checked, loaded and written by the classes of diffusers and
transformers themselves. A network always begins as a pipeline's: none is trained from scratch.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints import pipeline_parts
from guda_cli.checkpoints.components import PartsRead, json_part, scale_factor, tensors
from guda_cli.checkpoints.pipeline_parts import DIFFUSERS, Part, blobs_of
from guda_cli.errors import DataError, RecipeError
from guda_cli.families.family import PROMPT, Codec, Family, Taken, Traits, Wanted
from guda_cli.jsonable import canonical
from guda_cli.sections import Recipe

if TYPE_CHECKING:
    import torch

    from guda_cli.checkpoints.pipeline_sources import Found
    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.prompt_bank import PromptBank, Rows
    from guda_cli.diffusion.schedule import Schedule
    from guda_cli.diffusion.weight_file import PackedWeights
    from guda_cli.latent.pipeline_prompts import PipelinePrompts

SETTINGS = "pipeline"
"""Name of the stored output with the entries of the index that `settings` names."""
BESIDE = "beside"
"""Entry of a network's stored configuration that is ours: what its adapter needs beside the network."""


class PipelineFamily(Family):
    """A family on latents whose models are pipelines of diffusers; see the top of this module."""

    latent = True
    prompts = True
    package, extra = "transformers", "text"
    starts = True
    pipeline_class: ClassVar[str]
    """"module:Class" of the first of `pipelines`, as which models are written."""
    network_class: ClassVar[str]
    """"module:Class" of the denoiser."""
    vae: ClassVar[Part] = Part("vae", DIFFUSERS, ("AutoencoderKL",))
    texts: ClassVar[tuple[Part, ...]]
    """Text encoders and tokenizers."""
    limits: ClassVar[Mapping[str, int]]
    """How many tokens the prompt of each tokenizer may have."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Entries of a pipeline's index, beside its components, that say how it encodes prompts."""
    patch: ClassVar[int] = 1
    """Places a side of x0 that the network takes as one."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "texts"):
            cls.codec_parts, cls.prompt_parts = cls.vae.blobs, (*blobs_of(cls.texts), SETTINGS)
            cls.weighty_parts = tuple(part.name for part in (cls.vae, *cls.texts) if not part.is_text)

    # -- what each family says -----------------------------------------------------------------------

    @abstractmethod
    def embed(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, said: Mapping[str, Any]
    ) -> Rows:
        """Named rows of `texts` by a pipeline that has its encoders: see `pipeline_prompts.Embed`.

        `said` is what `encoding` kept.
        """

    def encoding(self, index: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """What decides how prompts are encoded beside the encoders: of the index, and of the network's."""
        return {key: index[key] for key in self.settings if key in index}

    @abstractmethod
    def denoiser(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None) -> Any:
        """See `Family`; `network.beside` is what `beside` said."""

    @abstractmethod
    def read_scheduler(self, config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """A scheduler's configuration as it is stored, and notes; DataError for another process."""

    def beside(
        self, index: Mapping[str, Any], config: Mapping[str, Any], vae: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the adapter needs of a pipeline's index, its network's configuration and its VAE's."""
        return {}

    def check_network(self, config: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Warnings about a network of this configuration; DataError for one that reads other things."""
        return ()

    # -- configurations ----------------------------------------------------------------------------

    def configs(
        self, recipe: Recipe, shape: tuple[int, int, int], groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        """See `Family`: nothing, as none is made from scratch."""
        return {self.network: {}, "scheduler": {}}

    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        """See `Family`."""
        return Traits(PROMPT, null=True, attention=True)

    def check_recipe(self, recipe: Recipe) -> None:
        """See `Family`."""
        if recipe.model.class_conditional:
            raise RecipeError("model.text_conditional and model.class_conditional exclude each other")

    def check_start(self, recipe: Recipe) -> None:
        """See `Family`."""
        if not (recipe.model.base or recipe.model.registered):
            raise RecipeError(
                f"recipe '{recipe.name}' needs a pipeline to start from",
                why=f"{self.name} models are not trained from scratch",
                fix="guda train RECIPE --from PIPELINE",
            )

    def width(self, config: Mapping[str, Any]) -> int:
        """See `Family`."""
        if "block_out_channels" in config:
            return int(config["block_out_channels"][0])
        return int(config.get("num_attention_heads", 1)) * int(config.get("attention_head_dim", 64))

    # -- networks and what stands around them ------------------------------------------------------

    def build(self, config: Mapping[str, Any], seed: int) -> torch.nn.Module:
        """See `Family`."""
        from guda_cli.diffusion.networks import build

        own = {key: value for key, value in config.items() if key != BESIDE}
        network = build(self.network_class, own, seed)
        network.beside = dict(config.get(BESIDE, {}))  # type: ignore[assignment]
        return network

    def codec(self, parts: PartsRead, device: torch.device) -> Codec:
        """See `Family`."""
        from guda_cli.latent.vae import LatentCodec

        return LatentCodec(tensors(parts, "vae"), json_part(parts, "vae_config"), device)

    def scale(self, vae: Mapping[str, Any]) -> int:
        """Pixels a side of an image per place of x0, by the VAE's configuration."""
        return scale_factor(vae)

    def encoder(self, parts: PartsRead, device: torch.device) -> PipelinePrompts:
        """See `Family`."""
        from guda_cli.latent.pipeline_prompts import PipelinePrompts

        said = json_part(parts, SETTINGS)
        settings = {key: said[key] for key in self.settings if key in said}

        def embed(pipeline: Any, texts: Sequence[str], device: torch.device) -> Rows:
            return self.embed(pipeline, texts, device, said)

        return PipelinePrompts(self.pipeline_class, self.texts, parts, device, embed, self.limits, settings)

    def spread(self, values: Any, size: int) -> Any:
        """See `Family`."""
        from guda_cli.latent.vae import spread_map

        return spread_map(values, size)

    # -- files of others ---------------------------------------------------------------------------

    @property
    def network_part(self) -> Part:
        """The denoiser as a component."""
        return Part(self.network, DIFFUSERS, (self.network_class.partition(":")[2],))

    @property
    def indexed_part(self) -> Part:
        """The denoiser as a pipeline's index names it, under older names, too."""
        return self.network_part

    def read_network(self, folder: Path) -> tuple[PackedWeights, dict[str, Any]]:
        """Weights and configuration of the denoiser in `folder`; DataError as `read_part`."""
        return pipeline_parts.read_network(folder, self.network_part)

    def check_source(self, found: Found) -> None:
        """UsageError for a kind of file that there is none of in this family."""
        return

    def take(self, source: str, beside: str | None, wanted: Wanted) -> Taken:
        """See `Family`."""
        from guda_cli.checkpoints.pipeline_sources import found_at

        with found_at(source, beside, (self.network_part, self.vae, *self.texts)) as found:
            self.check_source(found)
            return self._take(found, wanted)

    def _take(self, found: Found, wanted: Wanted) -> Taken:
        folder = found.pipeline
        index = pipeline_parts.read_index(folder)
        around = (self.vae, *self.texts)
        pipeline_parts.check_index(index, (self.indexed_part, *around), str(folder))
        own = found.network or folder / self.network
        weights, config = self.read_network(own)
        warnings = self.check_network(config, str(own))
        if found.adapter:
            weights = self._with_adapter(weights, config, found.adapter)
        scheduler_config, notes = self._scheduler(folder)
        parts: dict[str, bytes | PackedWeights] = {}
        for part in around:
            there = pipeline_parts.has_part(index, part)
            place = found.parts.get(part.name, folder)
            parts |= pipeline_parts.read_part(place, part) if there else pipeline_parts.nothing_of(part)
        parts[SETTINGS] = canonical(self.encoding(index, config))
        vae = json.loads(bytes(parts["vae_config"]))
        warnings += self._check_fits(config, vae, wanted)
        more = self.beside(index, config, vae)
        config = {**config, "_class_name": self.network_part.classes[0], **({BESIDE: more} if more else {})}
        stored = {
            self.network: config,
            "scheduler": scheduler_config,
            "posterior": wanted.recipe.latent.posterior,
        }
        notes += found.notes
        return Taken(weights, stored, self.schedule(scheduler_config), parts, notes=notes, warnings=warnings)

    def _with_adapter(
        self, weights: PackedWeights, config: Mapping[str, Any], adapter: Path
    ) -> PackedWeights:
        from guda_cli.checkpoints.pipeline_sources import with_adapter
        from guda_cli.latent.pipeline_prompts import pipeline_with

        network = self.build(config, 0)
        network.load_state_dict(weights.tensors())
        pipeline = pipeline_with(self.pipeline_class, {self.network: network})
        return weights.with_weights(with_adapter(pipeline, self.network, adapter))

    def _scheduler(self, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
        from guda_cli.checkpoints import supported
        from guda_cli.checkpoints.files import read_config

        path = folder / "scheduler" / "scheduler_config.json"
        return self.read_scheduler(
            supported.settings(read_config(path, "noise schedule"), str(path)), str(folder)
        )

    def _check_fits(
        self, config: Mapping[str, Any], vae: Mapping[str, Any], wanted: Wanted
    ) -> tuple[str, ...]:
        """Warnings; DataError where the recipe's images are not such as the pipeline takes."""
        channels, size, _ = wanted.shape
        takes = int(vae.get("in_channels", vae.get("input_channels", 3)))
        if takes != channels:
            raise DataError(
                f"the pipeline's VAE takes {takes} channels, the recipe gives {channels}",
                fix=f"--set data.channels={takes}",
            )
        multiple = self.scale(vae) * self.patch
        if size % multiple:
            raise DataError(
                f"data.size = {size} is no multiple of {multiple}, as this pipeline needs",
                fix=f"--set data.size={max(multiple, size // multiple * multiple)}",
            )
        return ()

    def begins_at(self, source: str, base: str) -> bool:
        """See `Family`: whether it has the network's weights."""
        from guda_cli.checkpoints.pipeline_folder import locate

        return any((locate(base) / self.network).glob("*.safetensors"))

    def write(self, folder: Path, weights: Weights, config: Mapping[str, Any], parts: PartsRead) -> None:
        """See `Family`: what `from_pretrained` of the first of `pipelines` opens."""
        own = {key: value for key, value in config[self.network].items() if key != BESIDE}
        scheduler = dict(config["scheduler"])
        index: dict[str, Any] = {
            "_class_name": self.pipelines[0],
            **{key: value for key, value in json_part(parts, SETTINGS).items() if key in self.settings},
        }
        pipeline_parts.write_network(folder / self.network, self.network_part, weights, own)
        index[self.network] = [DIFFUSERS, self.network_part.classes[0]]
        for part in (self.vae, *self.texts):
            index[part.name] = pipeline_parts.write_part(folder, part, parts) or [None, None]
        index["scheduler"] = [DIFFUSERS, scheduler["_class_name"]]
        for name, document in (("scheduler/scheduler_config.json", scheduler), ("model_index.json", index)):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
