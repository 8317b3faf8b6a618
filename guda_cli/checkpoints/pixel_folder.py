"""A pixel model in the layout of a `DDPMPipeline` folder, or of a bare `UNet2DModel` folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.checkpoints import supported
from guda_cli.checkpoints.files import download, is_hub_id, model_folder, read_config
from guda_cli.checkpoints.scheduler_file import checked_scheduler
from guda_cli.errors import DataError

if TYPE_CHECKING:
    from guda_cli.diffusion.networks import Weights

LAYOUT = "give a DDPMPipeline or UNet2DModel folder"
SCHEDULE = "scheduler_config.json"
ACCELERATE = "model.safetensors"
"""What Accelerate calls a network's weights in the checkpoints of a training."""


@dataclass(frozen=True)
class PixelFolder:
    """A folder whose network's configuration has been checked; the rest is read as it is asked for."""

    folder: Path
    unet: Path
    config: dict[str, Any]

    def scheduler(
        self, given: str | None, usual: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
        """The noise schedule's configuration, notes and warnings: in `given` (a folder or file), else beside.

        A pipeline's lies in `scheduler/`, or with all its files in one folder. A network of its own has that
        file beside its weights, or, where it is a pipeline's `unet/`, the `scheduler/` beside that, else
        `usual`; all three are said. DataError for one that is no DDPM's.
        """
        path, said = self._schedule(given)
        if path is None:
            if (self.folder / "model_index.json").is_file() or self.unet != self.folder:
                raise DataError(f"{self.folder}: the pipeline has no scheduler/", fix="--scheduler FOLDER")
            warning = "no noise schedule given (--scheduler DIR): the recipe's diffusion section is used"
            return usual, (), (warning,)
        read = read_config(path / SCHEDULE if path.is_dir() else path, "noise schedule", LAYOUT)
        config, notes = checked_scheduler(supported.settings(read, str(path)), str(path))
        return {k: v for k, v in config.items() if not k.startswith("_")}, (*said, *notes), ()

    def _schedule(self, given: str | None) -> tuple[Path | None, tuple[str, ...]]:
        """Where the noise schedule lies, and what is said of that."""
        if given:
            return Path(given).expanduser(), ()
        for path in (self.folder / "scheduler", self.folder / SCHEDULE, self.unet / SCHEDULE):
            if path.exists():
                whole = (self.folder / "model_index.json").is_file()
                return path, () if whole else (f"the noise schedule is that beside the weights: {path}",)
        here = self.folder.absolute()
        beside = here.parent / "scheduler"
        if here.name.startswith("unet") and beside.is_dir():
            return beside, (f"the noise schedule is that beside it: {beside}",)
        return None, ()

    def weights(self) -> tuple[Weights, tuple[str, ...]]:
        """The network's weights in float32 under today's names, which fit its configuration, and notes.

        One file, shards, or a variant. DataError where there are none, or others.
        """
        from guda_cli.checkpoints.pipeline_folder import variant_note
        from guda_cli.checkpoints.weights import (
            DIFFUSION,
            TRANSFORMERS,
            modern_attention_names,
            read_weights,
        )

        stem = DIFFUSION
        if not any(self.unet.glob(f"{DIFFUSION}*.safetensors*")) and (self.unet / ACCELERATE).is_file():
            stem = TRANSFORMERS
        weights, variant = read_weights(self.unet, stem, "the network", self._check)
        return modern_attention_names(weights), (variant_note("network", variant),) if variant else ()

    def _check(self, header: Weights) -> None:
        from diffusers.models.unets.unet_2d import UNet2DModel

        from guda_cli.checkpoints.weights import check_fit, modern_attention_names

        network = {k: v for k, v in self.config.items() if k != "null_class"}
        check_fit(
            modern_attention_names(header),
            network,
            lambda: UNet2DModel.from_config(network),
            f"{self.unet}: the network",
        )


def open_folder(source: str) -> PixelFolder:
    """The folder `source`, or that of the hub id OWNER/MODEL (fetched without pickles).

    A pipeline's network lies in `unet/`, or with all its files in one folder. DataError for a folder that is
    not there, for other pipelines than those of DDPM and DDIM, and for networks that read more than an image.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        if not is_hub_id(source):
            raise DataError(f"no such folder: {source}", fix="--from FOLDER")
        folder = download(source, ("*.json", "*.safetensors"), "download it and give the folder")
    if not folder.is_dir():
        raise DataError(f"{source} is a file", why="the network's configuration lies beside it", fix=LAYOUT)
    folder = model_folder(folder)
    _check_index(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    read = read_config(unet / "config.json", "network's configuration (config.json)", LAYOUT)
    config = supported.settings(read, str(unet))
    _check_network(config, unet)
    return PixelFolder(folder, unet, config)


def _check_index(folder: Path) -> None:
    """DataError where the pipeline that `folder` is, or whose network it is, is another than a DDPM."""
    here = folder.absolute()
    places = [here, here.parent] if here.name.startswith("unet") else [here]
    for place in places:
        if (place / "model_index.json").is_file():
            supported.check_pixel_index(read_config(place / "model_index.json"), str(place))


def _check_network(config: Mapping[str, Any], unet: Path) -> None:
    """DataError for a network of another class, or one that reads more than image, timestep and class."""
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise DataError(f"the network is a {name}", why="a UNet2DModel is needed")
    supported.check_blocks(config, "network", str(unet))
    if config.get("class_embed_type"):
        raise DataError(
            f"the network's class_embed_type is '{config['class_embed_type']}'",
            why="only unconditional models and those with num_class_embeds can be registered",
        )
    if config.get("time_embedding_type") == "fourier":
        raise DataError(
            f"{unet}: the network has time_embedding_type = 'fourier'",
            why="it reads a continuous level of noise, no timestep, as score-based models (ScoreSdeVe) do",
        )
    channels = config.get("in_channels") or 3, config.get("out_channels") or 3
    if channels[0] not in (1, 3):
        raise DataError(
            f"{unet}: the network has {channels[0]} input and {channels[1]} output channels",
            why="images have 1 or 3: it reads latents, or an image beside the noisy one",
        )
    supported.side(config, str(unet))
