"""A pixel model in the layout of a `DDPMPipeline` folder, or of a bare `UNet2DModel` folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guda_cli import git_lfs
from guda_cli.checkpoints.files import download, is_hub_id, pickles_only, read_json
from guda_cli.data.sources.hub_cache import snapshot_in
from guda_cli.errors import DataError
from guda_cli.sections import PREDICTION_TYPES

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
SHARDED = ".safetensors.index.json"
LAYOUT = "give a DDPMPipeline or UNet2DModel folder"


@dataclass(frozen=True)
class PixelFolder:
    """A folder whose network's configuration has been read; the rest is read as it is asked for."""

    folder: Path
    unet: Path
    config: dict[str, Any]

    def scheduler(self, given: str | None, usual: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The noise schedule's configuration, and warnings: in `given` (a folder or file), else beside it.

        Of a pipeline's `unet/` it is the `scheduler/` beside that, of a bare network without one `usual`;
        both are said. DataError for one that is no DDPM's.
        """
        path = Path(given).expanduser() if given else self.folder / "scheduler"
        said: tuple[str, ...] = ()
        beside = self.folder.absolute().parent / "scheduler"
        if not given and not path.exists() and self.folder.absolute().name == "unet" and beside.is_dir():
            path, said = beside, (f"the noise schedule is that beside it: {beside}",)
        if not given and not path.exists():
            if self.unet != self.folder:
                raise DataError(f"{self.folder}: the pipeline has no scheduler/", fix="--scheduler FOLDER")
            warning = "no noise schedule given (--scheduler DIR): the recipe's diffusion section is used"
            return usual, (warning,)
        config = read_json(
            path / "scheduler_config.json" if path.is_dir() else path, "noise schedule", LAYOUT
        )
        if config.get("beta_schedule") is None and config.get("trained_betas") is None:
            raise DataError(
                f"{path}: no beta_schedule", why="a noise schedule like DDPMScheduler's is needed"
            )
        kind = config.get("prediction_type") or "epsilon"
        if kind not in PREDICTION_TYPES:
            raise DataError(f"{path}: prediction_type '{kind}'", why="one of " + ", ".join(PREDICTION_TYPES))
        return {k: v for k, v in config.items() if not k.startswith("_")}, said

    def weights(self) -> bytes:
        """The network's safetensors (shards as one, in float32); DataError where there are none."""
        for name in WEIGHTS:
            if (self.unet / name).is_file():
                data = (self.unet / name).read_bytes()
                if git_lfs.is_pointer(data):
                    raise DataError(f"{self.unet / name} is not there", why=git_lfs.WHY, fix="git lfs pull")
                return data
        refusal = pickles_only(self.unet, "the network") if self.unet.is_dir() else None
        if refusal:
            raise refusal
        if any(self.unet.glob(f"*{SHARDED}")):
            from guda_cli.checkpoints.weights import DIFFUSION, read_weights
            from guda_cli.diffusion import networks

            return networks.to_bytes(read_weights(self.unet, DIFFUSION, "the network")[0])
        raise DataError(
            f"{self.unet} has no weights that can be read",
            why=f"looked for {' and '.join(WEIGHTS)}, or shards",
        )


def open_folder(source: str) -> PixelFolder:
    """The folder `source`, or that of the hub id OWNER/MODEL (fetched without pickles).

    A pipeline's network lies in `unet/`. DataError for a folder that is not there or holds another network.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        if not is_hub_id(source):
            raise DataError(f"no such folder: {source}", fix="--from FOLDER")
        folder = download(source, ("*.json", "*.safetensors"), "download it and give the folder")
    folder = snapshot_in(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_json(unet / "config.json", "network's configuration (config.json)", LAYOUT)
    _check_class(config)
    return PixelFolder(folder, unet, config)


def _check_class(config: Mapping[str, Any]) -> None:
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise DataError(f"the network is a {name}", why="a UNet2DModel is needed")
    if config.get("class_embed_type"):
        raise DataError(
            f"the network's class_embed_type is '{config['class_embed_type']}'",
            why="only unconditional models and those with num_class_embeds can be registered",
        )
