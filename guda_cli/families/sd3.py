"""Stable Diffusion 3 and 3.5: a transformer on latents that reads two CLIPs' and perhaps T5's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints.pipeline_parts import TRANSFORMERS, Part
from guda_cli.checkpoints.supported import CLASSES
from guda_cli.families.flow import FlowDenoiser, FlowFamily

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.prompt_bank import Rows

CLIP = CLASSES["tokenizer"]
T5 = ("T5TokenizerFast", "T5Tokenizer")
LENGTH = 256  # tokens of T5, as the pipeline has it


class JointDenoiser(FlowDenoiser):
    """See `FlowDenoiser`: a `SD3Transformer2DModel`."""

    def ask(self, x_t: Tensor, s: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """See `FlowDenoiser`."""
        out = self.network(
            hidden_states=x_t,
            timestep=1000.0 * s,
            encoder_hidden_states=rows["text"],
            pooled_projections=rows["pooled"],
            return_dict=False,
        )
        found: Tensor = out[0]
        return found


class StableDiffusion3(FlowFamily):
    """Rectified flow with a joint transformer (Esser et al. 2024); T5 may be missing, as pipelines allow."""

    name = "sd3"
    adapter = JointDenoiser
    pipelines = ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline")
    pipeline_class = (
        "diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3:StableDiffusion3Pipeline"
    )
    network_class = "diffusers.models.transformers.transformer_sd3:SD3Transformer2DModel"
    texts = (
        Part("text_encoder", TRANSFORMERS, ("CLIPTextModelWithProjection",)),
        Part("tokenizer", TRANSFORMERS, CLIP),
        Part("text_encoder_2", TRANSFORMERS, ("CLIPTextModelWithProjection",)),
        Part("tokenizer_2", TRANSFORMERS, CLIP),
        Part("text_encoder_3", TRANSFORMERS, ("T5EncoderModel",), optional=True),
        Part("tokenizer_3", TRANSFORMERS, T5, optional=True),
    )
    limits: ClassVar = {"tokenizer": 77, "tokenizer_2": 77, "tokenizer_3": LENGTH}
    patch = 2

    def encoding(self, index: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """See `PipelineFamily`: how wide T5's states are, which are zeros where it is missing."""
        return {"width": int(config.get("joint_attention_dim", 4096))}

    def embed(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, said: Mapping[str, Any]
    ) -> Rows:
        """See `PipelineFamily`."""
        import torch

        given: dict[str, Any] = {"device": device, "do_classifier_free_guidance": False}
        if pipeline.text_encoder_3 is not None:
            text, _, pooled, _ = pipeline.encode_prompt(list(texts), None, None, **given)
            return {"text": text, "pooled": pooled}
        clips = [
            pipeline._get_clip_prompt_embeds(list(texts), device=device, clip_model_index=i) for i in (0, 1)
        ]
        states = torch.cat([states for states, _ in clips], dim=-1)
        states = torch.nn.functional.pad(states, (0, said["width"] - states.shape[-1], 0, LENGTH))
        return {"text": states, "pooled": torch.cat([pooled for _, pooled in clips], dim=-1)}
