"""Image embeddings of a CLIP or DINO model through `transformers`, from safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guda_cli.attribution.rivals.embeddings import PIXELS, Embeddings, unit
from guda_cli.attribution.rivals.vision_input import Preprocessing, read_preprocessing
from guda_cli.checkpoints.config_fields import check_depth
from guda_cli.checkpoints.files import digest_of, download, encoder_folder, pickles_only, read_config
from guda_cli.checkpoints.weights import meta_state, read_header, shard_names
from guda_cli.data.dataset import Pixels
from guda_cli.errors import DataError, UsageError

# Encoders whose first output token is the image's; their pooler, where there is one, is often untrained.
CLS_TOKEN = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
WANTED = ["config.json", "*processor_config.json", "model*.safetensors", "model.safetensors.index.json"]
ACCEPTED = "accepted are CLIP-like models (with image features) and DINO, DINOv2 and other ViT encoders"


class VisionEncoder:
    """A loaded model with its preprocessing. `identity` is of its files' bytes, not of where they are."""

    def __init__(self, model: torch.nn.Module, kind: str, how: Preprocessing, identity: str) -> None:
        self.model, self.kind, self.how, self.identity = model, kind, how, identity
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def embed(self, pixels: Pixels, batch_size: int = 64) -> Embeddings:
        """Unit vectors float32 [N, D] of uint8 images [N, 1 or 3, H, W]: CLIP image features or CLS token."""
        parts = []
        for start in range(0, len(pixels), batch_size):
            inputs = torch.from_numpy(self.how.apply(pixels[start : start + batch_size]))
            parts.append(self._features(inputs.to(self.device)).float().cpu().numpy())
        return unit(np.concatenate(parts)) if parts else np.zeros((0, 0), dtype=np.float32)

    def _features(self, inputs: Tensor) -> Tensor:
        if self.kind == "joint":
            found = self.model.get_image_features(pixel_values=inputs)  # type: ignore[operator]
            features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
            return features
        out = self.model(pixel_values=inputs)
        token: Tensor = out.pooler_output if self.kind == "pooled" else out.last_hidden_state[:, 0]
        return token


def load(name: str, device: str = "cpu") -> VisionEncoder:
    """The encoder in the folder `name`, or of the hub id OWNER/MODEL (fetched without pickles).

    UsageError when `name` is neither or transformers is not installed; MissingError when the hub cannot be
    reached; DataError when it is no vision encoder, has code of its own, has no safetensors or lacks weights.
    """
    folder = locate(name)
    kind = _kind(folder)
    how = read_preprocessing(folder)
    _check_size(folder)
    return VisionEncoder(_model(folder, kind).to(device), kind, how, identity(folder))


def locate(name: str) -> Path:
    """The folder of `name`, downloaded if it is a hub id that is not in the hub's cache yet."""
    fix = f"--encoder {PIXELS}"
    remedy = f"download it elsewhere and give --encoder FOLDER, or use --encoder {PIXELS}"
    return encoder_folder(name, fix) or download(name, WANTED, remedy)


def identity(folder: Path) -> str:
    """SHA-256 over the configuration and weight files' names and bytes: the same wherever the folder lies."""
    configs = [path for path in folder.iterdir() if path.name.endswith(("config.json", ".index.json"))]
    paths = sorted([*configs, *_weight_files(folder)], key=lambda path: path.name)
    return f"vision/1:{digest_of('guda.vision-encoder/1', paths)}"


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in shard_names(index)]
    refusal = pickles_only(folder, "the encoder")
    if refusal:
        raise refusal
    raise DataError(
        f"the encoder in {folder} has no weights",
        why="looked for model.safetensors and its shards",
        fix="give a folder written by save_pretrained",
    )


def _check_size(folder: Path) -> None:
    """DataError where transformers would build another network, or a larger one than the weights fill.

    It takes the model that an adapter's file names instead of this one, and makes missing weights up.
    """
    if (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{folder} is an adapter of another model (adapter_config.json)",
            why="its base would be looked for elsewhere",
            fix="merge it into its model, and give that",
        )
    config = read_config(folder / "config.json")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    header = {name: value for path in _weight_files(folder) for name, value in read_header(path).items()}
    auto, auto_config = _classes()
    for part in parts:
        check_depth(part, len(header), f"the encoder in {folder}")

    def build() -> torch.nn.Module:
        known = auto_config.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        network: torch.nn.Module = auto.from_config(known, trust_remote_code=False)
        return network

    state = meta_state(config, len(header), build, f"the encoder in {folder}")
    wanted = sum(value.numel() for name, value in state.items() if "pooler" not in name.split("."))
    there = sum(value.numel() for value in header.values())
    if wanted > there * 1.1 + 1000:  # a few numbers may be computed, not stored
        raise DataError(
            f"the encoder in {folder} lacks weights",
            why=f"its config.json asks for {wanted:,} numbers, its weights are {there:,}",
            fix="download it again",
        )


def _kind(folder: Path) -> str:
    """How the embedding is read off: `joint` (get_image_features), `pooled` or `cls`."""
    config: dict[str, Any] = read_config(folder / "config.json")
    name = str(config.get("model_type", "none"))
    if "vision_config" in config and "text_config" in config:
        return "joint"
    if name == "clip_vision_model":
        return "pooled"
    if name in CLS_TOKEN:
        return "cls"
    raise DataError(
        f"the model in {folder} is no vision encoder that can be used (model_type '{name}')",
        why=ACCEPTED,
        fix=f"--encoder {PIXELS}",
    )


def _classes() -> tuple[Any, Any]:
    """transformers' `AutoModel` and `AutoConfig`; UsageError where it is not installed."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError:
        raise UsageError(
            "a CLIP or DINO encoder needs the package transformers", fix="pip install 'guda[encoders]'"
        ) from None
    return AutoModel, AutoConfig


def _model(folder: Path, kind: str) -> torch.nn.Module:
    try:
        model, info = _classes()[0].from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as err:  # noqa: BLE001 - damaged files end in many kinds of error
        raise DataError(
            f"transformers cannot load the encoder in {folder}",
            why=str(err).splitlines()[0] if str(err) else type(err).__name__,
            fix="download it again",
        ) from None
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key.split("."))
    if missing:
        raise DataError(
            f"the encoder in {folder} lacks weights",
            why=f"{len(missing)} tensors, '{missing[0]}' among them",
            fix="download it again",
        )
    if kind == "joint" and not hasattr(model, "get_image_features"):
        raise DataError(f"the model in {folder} has no image features", why=ACCEPTED)
    encoder: torch.nn.Module = model.eval().requires_grad_(False)
    return encoder
