"""VAE, text encoder and tokenizer of a text-to-image pipeline as plain values and as stored bytes.

No torch here: keys, plans and folders need them without running them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guda_cli.errors import CorruptError
from guda_cli.jsonable import canonical

if TYPE_CHECKING:
    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.weight_file import PackedWeights

PartsRead = Mapping[str, "bytes | Weights"]
"""What stands around a network, as the store has it: bytes, and weights as tensors."""
BLOBS = ("vae", "vae_config", "text_encoder", "text_config", "tokenizer")
"""Names of the outputs that hold a pipeline's components in the store."""


@dataclass(frozen=True, eq=False)
class Components:
    """What stands around the denoising network of a `StableDiffusionPipeline`.

    Weights are under the names of the diffusers or transformers class; configurations are
    those classes' own `config.json`, `_class_name`, `architectures` and the like left as they are.
    """

    vae: PackedWeights
    """Weights of an `AutoencoderKL`."""
    vae_config: Mapping[str, Any]
    text_encoder: PackedWeights
    """Weights of a `CLIPTextModel`."""
    text_config: Mapping[str, Any]
    tokenizer: Mapping[str, str]
    """The tokenizer's files: name -> text (`tokenizer.json`, `tokenizer_config.json`, ...)."""

    def to_blobs(self) -> dict[str, bytes | PackedWeights]:
        """What is stored by the names in BLOBS; equal components give equal bytes."""
        return {
            "vae": self.vae,
            "vae_config": canonical(self.vae_config),
            "text_encoder": self.text_encoder,
            "text_config": canonical(self.text_config),
            "tokenizer": canonical(self.tokenizer),
        }

    @staticmethod
    def from_blobs(blobs: PartsRead) -> Components:
        """From what the store has, weights as tensors; CorruptError for configurations that are none."""
        from guda_cli.diffusion.weight_file import PackedWeights

        parts = {name: json_part(blobs, name) for name in ("vae_config", "text_config", "tokenizer")}
        return Components(
            PackedWeights(tensors(blobs, "vae"), "the VAE"),
            parts["vae_config"],
            PackedWeights(tensors(blobs, "text_encoder"), "the text encoder"),
            parts["text_config"],
            {str(name): str(text) for name, text in parts["tokenizer"].items()},
        )


def tensors(blobs: PartsRead, name: str) -> Weights:
    """The weights that the part `name` is."""
    value = blobs[name]
    assert not isinstance(value, bytes)
    return value


def json_part(blobs: PartsRead, name: str) -> dict[str, Any]:
    """The JSON object that the part `name` is; CorruptError for anything else."""
    text = blobs[name]
    assert isinstance(text, bytes)
    try:
        value = json.loads(text)
    except ValueError as err:
        raise CorruptError(f"the stored {name} cannot be read", why=str(err)) from None
    if not isinstance(value, dict):
        raise CorruptError(f"the stored {name} is not a JSON object")
    return value


def scale_factor(vae_config: Mapping[str, Any]) -> int:
    """Pixels a side of an image per latent pixel: 2 ** (levels - 1)."""
    return int(2 ** (len(vae_config["block_out_channels"]) - 1))


def latent_shape(vae_config: Mapping[str, Any], size: int) -> tuple[int, int, int]:
    """[C, H, W] of the latent of a `size` x `size` image."""
    side = size // scale_factor(vae_config)
    return int(vae_config["latent_channels"]), side, side
