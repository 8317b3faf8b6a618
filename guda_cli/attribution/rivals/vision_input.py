"""What a vision model's `preprocessor_config.json` asks for, done with Pillow (no torchvision needed)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from guda_cli.checkpoints.files import read_config
from guda_cli.data.dataset import Pixels
from guda_cli.errors import DataError

# Absent from the file means done: the default of every image processor accepted here.
_STEPS = ("do_resize", "do_rescale", "do_normalize")


@dataclass(frozen=True)
class Preprocessing:
    """Resize to `height` x `width`, crop the centre to `crop` a side, scale, subtract mean, divide by std."""

    height: int
    width: int
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """float32 [N, 3, h, w] of square uint8 images [N, 1 or 3, H, W]; grey is repeated, small enlarged."""
        if pixels.shape[1] == 1:
            pixels = np.repeat(pixels, 3, axis=1)
        if pixels.shape[1] != 3:
            raise DataError(f"a vision encoder takes grey or RGB images, not {pixels.shape[1]} channels")
        images = np.stack([self._resized(image) for image in pixels.transpose(0, 2, 3, 1)])
        scaled = images.astype(np.float32) * np.float32(self.scale)
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))

    def _resized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        resized = np.asarray(
            Image.fromarray(np.ascontiguousarray(image)).resize(
                (self.width, self.height), Image.Resampling(self.resample)
            )
        )
        if self.crop is None:
            return resized
        top, left = ((have - want) // 2 for have, want in zip(resized.shape, self.crop, strict=False))
        return resized[top : top + self.crop[0], left : left + self.crop[1]]


def read_preprocessing(folder: Path) -> Preprocessing:
    """From `preprocessor_config.json` or the image part of `processor_config.json`; DataError without."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        values = read_config(path)
    else:
        path = folder / "processor_config.json"
        values = read_config(path, "preprocessor_config.json").get("image_processor", {})
    try:
        return _parsed(values)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        raise DataError(
            f"{path} does not say how images are prepared", why=f"{type(err).__name__}: {err}"
        ) from None


def _parsed(values: dict[str, Any]) -> Preprocessing:
    off = [step for step in _STEPS if not values.get(step, True)]
    if off:
        raise ValueError(f"{off[0]} is off")
    height, width = _sides(values["size"])
    crop = None
    if values.get("do_center_crop", "crop_size" in values):
        crop = _sides(values["crop_size"])
        if crop[0] > height or crop[1] > width:
            raise ValueError("the crop is larger than the image")
    mean, std = (tuple(float(v) for v in values[key]) for key in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0.0:
        raise ValueError("image_mean and image_std must be three numbers")
    resample = int(Image.Resampling(int(values.get("resample", Image.Resampling.BICUBIC))))
    scale = float(values.get("rescale_factor", 1.0 / 255.0))
    return Preprocessing(height, width, crop, resample, scale, mean, std)


def _sides(size: Any) -> tuple[int, int]:
    """(height, width) a square image gets: from one number, a shortest edge, or both sides."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            size = size["shortest_edge"]
        else:
            return int(size["height"]), int(size["width"])
    if int(size) < 1:
        raise ValueError("an image side below 1")
    return int(size), int(size)
