"""FLUX.1: a transformer on packed latents that reads T5's states, CLIP's pooled text and a guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints.pipeline_parts import TRANSFORMERS, Part
from guda_cli.families.flow import FlowDenoiser, FlowFamily, packed, unpacked
from guda_cli.families.sd3 import CLIP, T5

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.prompt_bank import Rows

LENGTH = 512  # tokens of T5, as the pipeline has it
GUIDANCE = 3.5  # what a network that was distilled to read one is told, as in sampling and fine-tuning


class PackedDenoiser(FlowDenoiser):
    """See `FlowDenoiser`: a `FluxTransformer2DModel`."""

    def ask(self, x_t: Tensor, s: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """See `FlowDenoiser`."""
        height, width = x_t.shape[-2:]
        guidance = self.beside.get("guidance")
        out = self.network(
            hidden_states=packed(x_t),
            timestep=s,
            guidance=None if guidance is None else s.new_full((len(x_t),), guidance).float(),
            pooled_projections=rows["pooled"],
            encoder_hidden_states=rows["text"],
            txt_ids=x_t.new_zeros(rows["text"].shape[1], 3),
            img_ids=places(height // 2, width // 2, x_t),
            return_dict=False,
        )
        return unpacked(out[0], height, width)


def places(height: int, width: int, like: Tensor) -> Tensor:
    """Where each token lies, [H W, 3]: (0, row, column)."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).to(like)


class Flux(FlowFamily):
    """FLUX.1 dev and others of its architecture (Black Forest Labs 2024)."""

    name = "flux"
    adapter = PackedDenoiser
    pipelines = ("FluxPipeline", "FluxImg2ImgPipeline")
    pipeline_class = "diffusers.pipelines.flux.pipeline_flux:FluxPipeline"
    network_class = "diffusers.models.transformers.transformer_flux:FluxTransformer2DModel"
    texts = (
        Part("text_encoder", TRANSFORMERS, ("CLIPTextModel",)),
        Part("tokenizer", TRANSFORMERS, CLIP),
        Part("text_encoder_2", TRANSFORMERS, ("T5EncoderModel",)),
        Part("tokenizer_2", TRANSFORMERS, T5),
    )
    limits: ClassVar = {"tokenizer_2": LENGTH}
    patch = 2

    def embed(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, said: Mapping[str, Any]
    ) -> Rows:
        """See `PipelineFamily`."""
        text, pooled, _ = pipeline.encode_prompt(list(texts), None, device=device, max_sequence_length=LENGTH)
        return {"text": text, "pooled": pooled}

    def beside(
        self, index: Mapping[str, Any], config: Mapping[str, Any], vae: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `PipelineFamily`."""
        return {"guidance": GUIDANCE} if config.get("guidance_embeds") else {}
