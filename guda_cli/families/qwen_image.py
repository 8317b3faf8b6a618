"""Qwen-Image: a transformer on packed latents of a video VAE that reads a language model's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints.components import PartsRead, json_part
from guda_cli.checkpoints.pipeline_parts import DIFFUSERS, TRANSFORMERS, Part
from guda_cli.families.flow import FlowDenoiser, FlowFamily, packed, unpacked
from guda_cli.families.z_image import QWEN_TOKENIZERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.prompt_bank import Rows
    from guda_cli.latent.frame_codec import FrameCodec


class MaskedDenoiser(FlowDenoiser):
    """See `FlowDenoiser`: a `QwenImageTransformer2DModel`."""

    def ask(self, x_t: Tensor, s: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """See `FlowDenoiser`."""
        height, width = x_t.shape[-2:]
        longest = max(1, int(rows["mask"].sum(1).max()))
        mask = rows["mask"][:, :longest]
        out = self.network(
            hidden_states=packed(x_t),
            timestep=s,
            guidance=None,
            encoder_hidden_states=rows["text"][:, :longest],
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x_t),
            return_dict=False,
        )
        return unpacked(out[0], height, width)


class QwenImage(FlowFamily):
    """Qwen-Image (Wu et al. 2025)."""

    name = "qwen-image"
    adapter = MaskedDenoiser
    pipelines = ("QwenImagePipeline", "QwenImageImg2ImgPipeline")
    pipeline_class = "diffusers.pipelines.qwenimage.pipeline_qwenimage:QwenImagePipeline"
    network_class = "diffusers.models.transformers.transformer_qwenimage:QwenImageTransformer2DModel"
    vae = Part("vae", DIFFUSERS, ("AutoencoderKLQwenImage",))
    texts = (
        Part("text_encoder", TRANSFORMERS, ("Qwen2_5_VLForConditionalGeneration",)),
        Part("tokenizer", TRANSFORMERS, QWEN_TOKENIZERS),
    )
    limits: ClassVar = {"tokenizer": 1024}
    patch = 2

    def embed(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, said: Mapping[str, Any]
    ) -> Rows:
        """See `PipelineFamily`."""
        import torch

        text, mask = pipeline.encode_prompt(list(texts), device=device)
        everywhere = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        return {"text": text, "mask": everywhere if mask is None else mask.bool()}

    def scale(self, vae: Mapping[str, Any]) -> int:
        """See `PipelineFamily`."""
        return int(2 ** len(vae.get("temperal_downsample") or (False, True, True)))

    def codec(self, parts: PartsRead, device: torch.device) -> FrameCodec:
        """See `Family`."""
        from guda_cli.checkpoints.pipeline_parts import load_part
        from guda_cli.latent.frame_codec import FrameCodec

        config = json_part(parts, "vae_config")
        return FrameCodec(load_part(self.vae, parts), self.scale(config), device)
