"""Z-Image: a transformer on latents that reads a language model's states, and time from noise to image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.checkpoints.pipeline_parts import TRANSFORMERS, Part
from guda_cli.families.flow import FlowDenoiser, FlowFamily

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.prompt_bank import Rows

QWEN_TOKENIZERS = ("Qwen2Tokenizer", "Qwen2TokenizerFast")


class ReversedDenoiser(FlowDenoiser):
    """See `FlowDenoiser`: a `ZImageTransformer2DModel`, which takes lists and says image minus noise."""

    def ask(self, x_t: Tensor, s: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """See `FlowDenoiser`."""
        import torch

        texts = [text[mask] for text, mask in zip(rows["text"], rows["mask"], strict=True)]
        out = self.network(list(x_t[:, :, None].unbind(0)), 1.0 - s, texts, return_dict=False)[0]
        return -torch.stack(list(out))[:, :, 0]


class ZImage(FlowFamily):
    """Z-Image (Alibaba 2025): a single-stream transformer."""

    name = "z-image"
    adapter = ReversedDenoiser
    pipelines = ("ZImagePipeline", "ZImageImg2ImgPipeline")
    pipeline_class = "diffusers.pipelines.z_image.pipeline_z_image:ZImagePipeline"
    network_class = "diffusers.models.transformers.transformer_z_image:ZImageTransformer2DModel"
    texts = (
        Part("text_encoder", TRANSFORMERS, ("Qwen3Model", "Qwen3ForCausalLM")),
        Part("tokenizer", TRANSFORMERS, QWEN_TOKENIZERS),
    )
    limits: ClassVar = {"tokenizer": 512}
    patch = 2

    def width(self, config: Mapping[str, Any]) -> int:
        """See `Family`."""
        return int(config["dim"])

    def embed(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, said: Mapping[str, Any]
    ) -> Rows:
        """See `PipelineFamily`."""
        found, _ = pipeline.encode_prompt(list(texts), device=device, do_classifier_free_guidance=False)
        return padded(found)


def padded(texts: Sequence[Tensor]) -> dict[str, Tensor]:
    """States [L_i, D] of texts as "text" [n, L, D], filled up with zeros, and their "mask" [n, L]."""
    import torch

    lengths = torch.tensor([len(text) for text in texts])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return {
        "text": torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True),
        "mask": mask.to(texts[0].device),
    }
