"""Stable Diffusion 1.x and 2.x: a `UNet2DConditionModel` on a VAE's latents that reads CLIP's text states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.checkpoints.components import BLOBS, Components, PartsRead, json_part, scale_factor, tensors
from guda_cli.checkpoints.supported import PIPELINES, side
from guda_cli.errors import DataError, RecipeError
from guda_cli.families.family import (
    PROMPT,
    Family,
    Maker,
    Materials,
    Taken,
    Traits,
    Wanted,
)
from guda_cli.families.unet_recipe import check_blocks
from guda_cli.jsonable import canonical
from guda_cli.sections import Recipe, TextSpec, network_settings, to_dict

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.checkpoints.pipeline_folder import Pipeline
    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.prompt_bank import PromptBank, Rows
    from guda_cli.diffusion.schedule import Schedule
    from guda_cli.diffusion.weight_file import PackedWeights
    from guda_cli.latent.text_encoder import TextEncoder
    from guda_cli.latent.vae import LatentCodec
    from guda_cli.training.loop import Hooks
    from guda_cli.training.run_state import RunState

CLASS_NAME = "UNet2DConditionModel"
NETWORK = f"diffusers.models.unets.unet_2d_condition:{CLASS_NAME}"
VAE, TEXT = BLOBS[:2], BLOBS[2:]
ROW = "embeddings"
"""Name of the one tensor that a prompt becomes: the text encoder's states [77, D]."""
READ = ("pattern", "template", "separator")
"""Settings of how a prompt is taken apart and put together."""
_BUILT = ("hidden_size", "layers", "heads", "vocabulary", "steps", "batch_size", "lr", "seed")


class TextDenoiser:
    """A text-conditional network in latent space; see `Denoiser`.

    `predict` takes prompt indices int64 [N]; None stands for the empty prompt (classifier-free guidance, Ho
    & Salimans 2022). Forwards run in the network's dtype, the prediction is float32.
    """

    null: int | None = 0
    """Index of the null condition, the empty prompt."""

    def __init__(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank) -> None:
        self.network, self.schedule, self.bank = network, schedule, bank
        first = next(network.parameters())
        self.dtype, self.device = first.dtype, first.device

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`; `cond` are prompt indices int64 [N]."""
        text = self.bank.told(cond, t)[ROW].to(self.dtype)
        out = self.network(x_t.to(self.dtype), t - 1, encoder_hidden_states=text, return_dict=False)
        raw: Tensor = out[0]
        return raw.float()


class ClipPrompts:
    """A CLIP text encoder as `PromptEncoder`."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def rows(self, texts: Sequence[str]) -> Rows:
        """See `PromptEncoder`."""
        return {ROW: self.encoder.encode(texts)}

    def unit_embeddings(self, texts: Sequence[str]) -> Tensor:
        """See `PromptEncoder`."""
        return self.encoder.unit_embeddings(texts)

    def cut(self, texts: Sequence[str]) -> dict[str, str]:
        """See `PromptEncoder`."""
        from guda_cli.latent.tokenizer import cut

        return cut(self.encoder.tokenizer, texts)


# -- parts trained where no pipeline brings them ---------------------------------------------------------


def _vae_params(recipe: Recipe) -> dict[str, Any]:
    spec = to_dict(recipe.latent)
    for name in ("posterior", "check_scaling"):
        spec.pop(name)
    return {"latent": spec}


def _text_params(recipe: Recipe) -> dict[str, Any]:
    given, usual = to_dict(recipe.text), to_dict(TextSpec())
    spec = {name: given[name] for name in _BUILT}
    if recipe.text.steps:  # it is trained on captions taken apart; left out where they are the default
        spec |= {name: given[name] for name in READ if given[name] != usual[name]}
    return {"text": spec}


def _make_vae(m: Materials, resume: RunState | None, hooks: Hooks) -> dict[str, bytes | PackedWeights]:
    from guda_cli.diffusion.weight_file import PackedWeights
    from guda_cli.latent.vae_training import train_vae

    weights, config = train_vae(m.images, m.recipe.latent, resume=resume, hooks=hooks, device=m.device)
    return {"vae": PackedWeights(weights, "the VAE"), "vae_config": canonical(config)}


def _make_text(m: Materials, resume: RunState | None, hooks: Hooks) -> dict[str, bytes | PackedWeights]:
    from guda_cli.diffusion.weight_file import PackedWeights
    from guda_cli.latent.text_training import train_text_encoder

    x0 = _codec(m.parts, m.device).encode(m.images)
    weights, config, tokenizer = train_text_encoder(
        m.prompts, x0, m.recipe.text, resume=resume, hooks=hooks, device=m.device
    )
    return {
        "text_encoder": PackedWeights(weights, "the text encoder"),
        "text_config": canonical(config),
        "tokenizer": canonical(tokenizer),
    }


def _codec(parts: PartsRead, device: torch.device | str = "cpu") -> LatentCodec:
    from guda_cli.latent.vae import LatentCodec

    return LatentCodec(tensors(parts, "vae"), json_part(parts, "vae_config"), device)


class StableDiffusion(Family):
    """Latent text-to-image diffusion with one CLIP text encoder."""

    name = "stable-diffusion"
    network = "unet"
    latent = True
    prompts = True
    codec_parts = VAE
    prompt_parts = TEXT
    weighty_parts = ("vae", "text_encoder")
    package, extra = "transformers", "text"
    pipelines = PIPELINES
    starts = True
    makers = (
        Maker("vae", "VAE", VAE, (), _vae_params, lambda r: (r.latent.steps, r.latent.batch_size), _make_vae),
        Maker(
            "text-encoder", "text encoder", TEXT, VAE, _text_params,
            lambda r: (r.text.steps, r.text.batch_size), _make_text,
        ),
    )  # fmt: skip

    # -- configurations ----------------------------------------------------------------------------

    def configs(
        self, recipe: Recipe, shape: tuple[int, int, int], groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        """See `Family`; `null_class` is false where training never shows an image without its prompt."""
        unet = network_settings(recipe)
        unet.pop("add_attention")  # its middle block always has some
        factor = scale_factor({"block_out_channels": recipe.latent.block_out_channels})
        channels = recipe.latent.latent_channels
        unet |= {
            "_class_name": CLASS_NAME,
            "sample_size": shape[1] // factor,
            "in_channels": channels,
            "out_channels": channels,
            "cross_attention_dim": recipe.text.hidden_size,
        }
        if recipe.train.prompt_dropout == 0:
            unet["null_class"] = False
        scheduler = {**to_dict(recipe.diffusion), "clip_sample": False, "steps_offset": 1}
        return {"unet": unet, "scheduler": scheduler}

    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        """See `Family`."""
        blocks = (*config.get("down_block_types", ()), *config.get("up_block_types", ()))
        return Traits(PROMPT, bool(config.get("null_class", True)), True, True, blocks)

    def check_recipe(self, recipe: Recipe) -> None:
        """See `Family`."""
        self._check_sizes(recipe)
        if recipe.model.class_conditional:
            raise RecipeError("model.text_conditional and model.class_conditional exclude each other")
        if recipe.text.hidden_size % recipe.text.heads:
            raise RecipeError(f"text.heads = {recipe.text.heads} does not divide text.hidden_size")
        groups = recipe.latent.norm_num_groups
        for width in recipe.latent.block_out_channels:
            if width % groups:
                raise RecipeError(f"latent.norm_num_groups = {groups} does not divide {width} channels")

    def _check_sizes(self, recipe: Recipe) -> None:
        side, of = recipe.data.size, "data.size"
        if not recipe.model.registered:
            factor = scale_factor({"block_out_channels": recipe.latent.block_out_channels})
            if side % factor:
                raise RecipeError(f"data.size = {side} is no multiple of {factor}, the VAE's scale")
            side, of = side // factor, "the latent's size"
        check_blocks(recipe, side, of)

    def check_start(self, recipe: Recipe) -> None:
        """See `Family`: RecipeError where the recipe leaves its network to a pipeline that is not given."""
        model = recipe.model
        blocks = [*model.down_block_types, *model.up_block_types]
        if model.base or model.registered or any("CrossAttn" in block for block in blocks):
            return
        raise RecipeError(
            f"recipe '{recipe.name}' needs a pipeline to start from",
            why="its model section has no block that reads text (CrossAttnDownBlock2D, CrossAttnUpBlock2D)",
            fix="guda train RECIPE --from PIPELINE",
        )

    # -- networks and what stands around them ------------------------------------------------------

    def build(self, config: Mapping[str, Any], seed: int) -> torch.nn.Module:
        """See `Family`."""
        from guda_cli.diffusion.networks import build

        return build(NETWORK, config, seed)

    def denoiser(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None) -> TextDenoiser:
        """See `Family`."""
        assert bank is not None
        return TextDenoiser(network, schedule, bank)

    def moves_for_query(self, name: str) -> bool:
        """See `Family`: the keys and values of cross-attention (Wang et al. 2024)."""
        return ".attn2.to_k." in name or ".attn2.to_v." in name

    def codec(self, parts: PartsRead, device: torch.device) -> LatentCodec:
        """See `Family`."""
        return _codec(parts, device)

    def encoder(self, parts: PartsRead, device: torch.device) -> ClipPrompts:
        """See `Family`."""
        from guda_cli.latent.text_encoder import TextEncoder

        config, tokenizer = (json_part(parts, name) for name in ("text_config", "tokenizer"))
        return ClipPrompts(TextEncoder(config, tensors(parts, "text_encoder"), tokenizer, device=device))

    def spread(self, values: Any, size: int) -> Any:
        """See `Family`."""
        from guda_cli.latent.vae import spread_map

        return spread_map(values, size)

    # -- files of others ---------------------------------------------------------------------------

    def take(self, source: str, beside: str | None, wanted: Wanted) -> Taken:
        """See `Family` and `model_source.register_source`."""
        from guda_cli.checkpoints.model_source import register_source

        pipeline = register_source(source, beside)
        warnings = _check_fits(pipeline, wanted)
        if wanted.recipe.latent.check_scaling:
            self._check_scaling(pipeline, wanted)
        schedule = self.schedule(pipeline.scheduler_config)  # checked when it was read
        parts = pipeline.components.to_blobs()
        config: dict[str, Any] = {
            "unet": {**pipeline.unet_config, "_class_name": CLASS_NAME},
            "scheduler": dict(pipeline.scheduler_config),
            "posterior": wanted.recipe.latent.posterior,
        }
        return Taken(pipeline.unet, config, schedule, parts, notes=pipeline.notes, warnings=warnings)

    def _check_scaling(self, pipeline: Pipeline, wanted: Wanted) -> None:
        """DataError where latents are so large that the VAE's scale must have been forgotten."""
        from guda_cli.latent.vae import LatentCodec, check_overflow

        parts = pipeline.components
        check_overflow(LatentCodec(parts.vae.tensors(), parts.vae_config).encode(wanted.some()))

    def begins_at(self, source: str, base: str) -> bool:
        """See `Family`."""
        from guda_cli.checkpoints.model_source import begins_at

        return begins_at(source, base)

    def write(self, folder: Path, weights: Weights, config: Mapping[str, Any], parts: PartsRead) -> None:
        """See `Family`: a `StableDiffusionPipeline`."""
        from guda_cli.checkpoints.pipeline_folder import Pipeline
        from guda_cli.checkpoints.write_pipeline import write_pipeline
        from guda_cli.diffusion.weight_file import PackedWeights

        unet = PackedWeights(weights, "the model")
        components = Components.from_blobs(parts)
        write_pipeline(folder, Pipeline(unet, config["unet"], config["scheduler"], components))


def _check_fits(pipeline: Pipeline, wanted: Wanted) -> tuple[str, ...]:
    """Warnings; DataError where the recipe's images are not such as the pipeline takes."""
    channels, size, _ = wanted.shape
    config, factor = pipeline.components.vae_config, scale_factor(pipeline.components.vae_config)
    if config.get("in_channels", 3) != channels:
        raise DataError(
            f"the pipeline's VAE takes {config.get('in_channels', 3)} channels, the recipe gives {channels}",
            fix=f"--set data.channels={config.get('in_channels', 3)}",
        )
    levels = len(pipeline.unet_config["block_out_channels"])
    multiple = factor * 2 ** (levels - 1)
    if size % multiple:
        raise DataError(
            f"data.size = {size} is no multiple of {multiple}, as this pipeline needs",
            fix=f"--set data.size={max(multiple, size // multiple * multiple)}",
        )
    trained = (side(pipeline.unet_config, "the unet") or 0) * factor
    if trained and trained != size:
        return (
            f"the pipeline was trained on {trained} x {trained} images, the recipe gives {size} x {size}",
        )
    return ()
