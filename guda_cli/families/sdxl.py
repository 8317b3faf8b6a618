"""Stable Diffusion XL: a `UNet2DConditionModel` that reads two CLIPs' states, their pooled text and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints.components import scale_factor
from guda_cli.checkpoints.pipeline_parts import TRANSFORMERS, Part
from guda_cli.checkpoints.supported import CLASSES
from guda_cli.errors import DataError
from guda_cli.families.diffusers_pipeline import PipelineFamily
from guda_cli.families.family import PROMPT, Traits

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.prompt_bank import PromptBank, Rows
    from guda_cli.diffusion.schedule import Schedule

_CLIP = CLASSES["tokenizer"]


class SizedDenoiser:
    """A network of Stable Diffusion XL; see `Denoiser`. `predict` takes prompt indices int64 [N].

    Beside the text it is told of each image its size before it was scaled, the corner it was cut at and its
    size now (Podell et al. 2023, section 2.2): here that of the picture itself, uncut.
    """

    null: int | None = 0

    def __init__(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank) -> None:
        self.network, self.schedule, self.bank = network, schedule, bank
        first = next(network.parameters())
        self.dtype, self.device = first.dtype, first.device
        self.factor = int(network.beside["factor"])  # type: ignore[index]

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`."""
        rows = self.bank.told(cond, t)
        height, width = (side * self.factor for side in x_t.shape[-2:])
        sizes = x_t.new_tensor([[height, width, 0, 0, height, width]], dtype=self.dtype)
        out = self.network(
            x_t.to(self.dtype),
            t - 1,
            encoder_hidden_states=rows["text"].to(self.dtype),
            added_cond_kwargs={
                "text_embeds": rows["pooled"].to(self.dtype),
                "time_ids": sizes.expand(len(x_t), -1),
            },
            return_dict=False,
        )
        raw: Tensor = out[0]
        return raw.float()


class StableDiffusionXL(PipelineFamily):
    """Latent text-to-image diffusion with two CLIP text encoders and sizes (Podell et al. 2023)."""

    name = "sdxl"
    network = "unet"
    pipelines = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
    pipeline_class = (
        "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl:StableDiffusionXLPipeline"
    )
    network_class = "diffusers.models.unets.unet_2d_condition:UNet2DConditionModel"
    settings = ("force_zeros_for_empty_prompt",)
    texts = (
        Part("text_encoder", TRANSFORMERS, ("CLIPTextModel",)),
        Part("tokenizer", TRANSFORMERS, _CLIP),
        Part("text_encoder_2", TRANSFORMERS, ("CLIPTextModelWithProjection",)),
        Part("tokenizer_2", TRANSFORMERS, _CLIP),
    )
    limits: ClassVar = {"tokenizer": 77, "tokenizer_2": 77}

    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        """See `Family`."""
        blocks = (*config.get("down_block_types", ()), *config.get("up_block_types", ()))
        return Traits(PROMPT, True, True, True, blocks)

    def moves_for_query(self, name: str) -> bool:
        """See `Family`: the keys and values of cross-attention (Wang et al. 2024)."""
        return ".attn2.to_k." in name or ".attn2.to_v." in name

    def embed(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, said: Mapping[str, Any]
    ) -> Rows:
        """See `PipelineFamily`: zeros for the empty prompt where the pipeline has it so."""
        import torch

        text, _, pooled, _ = pipeline.encode_prompt(
            list(texts), device=device, do_classifier_free_guidance=False
        )
        zeros = pipeline.config.force_zeros_for_empty_prompt
        told = torch.tensor([bool(one) or not zeros for one in texts], device=text.device)
        return {"text": text * told[:, None, None], "pooled": pooled * told[:, None]}

    def denoiser(
        self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None
    ) -> SizedDenoiser:
        """See `Family`."""
        assert bank is not None
        return SizedDenoiser(network, schedule, bank)

    def read_scheduler(self, config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """See `PipelineFamily`: any that shares a DDPM's betas."""
        from guda_cli.checkpoints.scheduler_file import checked_scheduler

        return checked_scheduler(config, where)

    def beside(
        self, index: Mapping[str, Any], config: Mapping[str, Any], vae: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `PipelineFamily`."""
        return {"factor": scale_factor(vae)}

    def check_network(self, config: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """See `PipelineFamily`."""
        if config.get("addition_embed_type") != "text_time":
            raise DataError(
                f"{where}: the unet has addition_embed_type = {config.get('addition_embed_type')!r}",
                why="a network of Stable Diffusion XL reads a pooled text and sizes (text_time)",
            )
        if config.get("time_cond_proj_dim"):
            raise DataError(
                f"{where}: the unet has time_cond_proj_dim = {config['time_cond_proj_dim']!r:.60}",
                why="it also reads the guidance scale, as latent consistency models (LCM) and others "
                "distilled do",
                fix="take the text-to-image model that it was made from",
            )
        return ()
