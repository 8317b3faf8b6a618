"""The CLIP text encoder of a text-to-image model: its configuration, and running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guda_cli.checkpoints.clip_folder import CLIP_FIX, locate
from guda_cli.checkpoints.config_fields import check_fields
from guda_cli.checkpoints.files import read_config
from guda_cli.checkpoints.tokenizer_files import read_tokenizer
from guda_cli.checkpoints.weights import (
    TRANSFORMERS,
    check_fit,
    plain_text_names,
    prefixed_text_names,
    read_weights,
)
from guda_cli.diffusion.networks import Weights, check_finite, sharing
from guda_cli.diffusion.noise import seed_of
from guda_cli.diffusion.weight_file import MappedWeights
from guda_cli.errors import DataError
from guda_cli.latent.tokenizer import LENGTH, load_tokenizer, tokenize
from guda_cli.sections import TextSpec

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

BATCH = 64  # texts encoded at once
PROJECTION = "text_projection.weight"


def text_config(spec: TextSpec, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Configuration of a `CLIPTextModel` for that tokenizer's ids."""
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "hidden_act": "quick_gelu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": 4 * spec.hidden_size,
        "max_position_embeddings": LENGTH,
        "model_type": "clip_text_model",
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": spec.hidden_size,
        "vocab_size": len(tokenizer),
    }


def build_text_encoder(config: Mapping[str, Any], seed: int) -> torch.nn.Module:
    """A `CLIPTextModel` of that configuration, weights drawn from `seed`; DataError if it cannot be built."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed_of("guda.text-init/1", seed))
    try:
        model: torch.nn.Module = CLIPTextModel(CLIPTextConfig.from_dict(dict(config)))
    except Exception as err:  # noqa: BLE001 - transformers' validators have their own errors
        raise DataError(
            "transformers cannot build this CLIPTextModel",
            why=" ".join(str(err).split()) or type(err).__name__,
        ) from None
    return model


class TextEncoder:
    """A `CLIPTextModel` with its tokenizer; forwards run in float32.

    Names of `weights` are those of `plain_text_names`, with a "text_projection.weight" where there is one.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Weights,
        tokenizer: Mapping[str, str],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(weights, MappedWeights):  # those are a store's, which knows it of them
            check_finite(weights, "the text encoder")
        tensors = dict(weights)
        self.tokenizer = load_tokenizer(tokenizer)
        self.device = torch.device(device)
        self.projection = tensors.pop(PROJECTION, torch.zeros(0)).to(self.device, torch.float32)
        self.model = _filled(config, tensors, self.device)
        if len(self.tokenizer) > int(self.model.config.vocab_size):  # type: ignore[union-attr,arg-type]
            raise DataError(
                "the tokenizer has more tokens than the text encoder knows",
                why="they are of different models",
                fix="take the tokenizer and the text encoder of one model",
            )

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """What cross-attention reads, float32 [n, 77, D] on the encoder's device: the last hidden state.

        After the final norm, as `StableDiffusionPipeline.encode_prompt` has it; what a text has beyond 77
        tokens is not read.
        """
        if not texts:
            return torch.zeros((0, LENGTH, int(self.model.config.hidden_size)), device=self.device)  # type: ignore[union-attr,arg-type]
        return torch.cat([self.model(ids).last_hidden_state.float() for ids in self._ids(texts)])

    @torch.inference_mode()
    def unit_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Vectors of length 1, float32 [n, D] on the CPU.

        The state at the end token, through the projection if there is one.
        """
        pooled = torch.cat([self.model(ids).pooler_output for ids in self._ids(texts)])
        found = pooled @ self.projection.T if self.projection.numel() else pooled
        return torch.nn.functional.normalize(found.float(), dim=-1).cpu()

    def _ids(self, texts: Sequence[str]) -> Sequence[Tensor]:
        ids = tokenize(self.tokenizer, texts).to(self.device)
        return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]


def load_clip(name: str, device: torch.device | str = "cpu") -> TextEncoder:
    """The text side of a CLIP model in the folder `name`, or of the hub id OWNER/MODEL; safetensors only.

    A whole `CLIPModel`, a `CLIPTextModelWithProjection` or a `CLIPTextModel`. UsageError when `name` is
    neither folder nor hub id; MissingError when the hub cannot be reached; DataError for other models,
    pickles, missing or damaged files.
    """
    folder = locate(name)
    config = _text_part(read_config(folder / "config.json"), folder)
    check_fields(config, str(folder / "config.json"))
    weights, _ = read_weights(
        folder, TRANSFORMERS, "the CLIP model", lambda header: _check_text(header, config, folder)
    )
    tokenizer, _ = read_tokenizer(folder, config)
    return TextEncoder(config, _text_weights(weights), tokenizer, device=device)


def _text_weights(weights: Weights) -> Weights:
    """Those of a CLIP model's text side, and its projection."""
    return {
        name: value
        for name, value in plain_text_names(weights).items()
        if name.startswith(("embeddings.", "encoder.", "final_layer_norm.")) or name == PROJECTION
    }


def _check_text(header: Weights, config: Mapping[str, Any], folder: Path) -> None:
    text = {name: value for name, value in _text_weights(header).items() if name != PROJECTION}
    check_fit(text, config, lambda: build_text_encoder(config, 0), f"the CLIP model in {folder}")


def _text_part(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The text model's configuration in that of a CLIP model."""
    kind = config.get("model_type")
    if kind == "clip" and isinstance(config.get("text_config"), Mapping):
        return {**config["text_config"], "dtype": "float32"}
    if kind == "clip_text_model":
        return {**config, "dtype": "float32"}
    raise DataError(
        f"the model in {folder} is no CLIP text encoder (model_type '{kind}')",
        why="accepted are CLIPModel, CLIPTextModelWithProjection and CLIPTextModel",
        fix=CLIP_FIX,
    )


def _filled(config: Mapping[str, Any], weights: Weights, device: torch.device) -> torch.nn.Module:
    """A `CLIPTextModel` of these `weights`; the names of its own have a prefix in transformers before 5.6."""
    with torch.device("meta"):
        prefixed = any(name.startswith("text_model.") for name in build_text_encoder(config, 0).state_dict())
    plain = {name: value.to(device, torch.float32) for name, value in plain_text_names(weights).items()}
    try:
        model = sharing(
            lambda: build_text_encoder(config, 0), prefixed_text_names(plain) if prefixed else plain
        )
        return model.to(device)
    except ValueError as err:
        raise DataError(
            "the text encoder's weights do not fit its configuration", why=" ".join(str(err).split())[:300]
        ) from None
