"""Images that are of no group of the training data: what a verdict must not be given for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
LETTERS = "ABCDEFGHJKLMNPQRTUVWXYabdefghkmnpqrtwxy"


def noise(training: Pixels, rng: np.random.Generator) -> Pixels:
    """Every value alike likely."""
    return rng.integers(0, 256, training.shape[1:]).astype(np.uint8)


def shuffled(training: Pixels, rng: np.random.Generator) -> Pixels:
    """The pixels of a training image, in any order."""
    image = training[rng.integers(len(training))]
    flat = image.reshape(len(image), -1)
    return flat[:, rng.permutation(flat.shape[1])].reshape(image.shape)


def flat(training: Pixels, rng: np.random.Generator) -> Pixels:
    """One colour."""
    channels, *size = training.shape[1:]
    return np.broadcast_to(rng.integers(0, 256, (channels, 1, 1)), (channels, *size)).astype(np.uint8)


def ramp(training: Pixels, rng: np.random.Generator) -> Pixels:
    """From one colour to another, in any direction."""
    channels, height, width = training.shape[1:]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width]
    along = np.cos(angle) * x / width + np.sin(angle) * y / height
    along = (along - along.min()) / np.ptp(along)
    low, high = rng.integers(0, 256, (2, channels, 1, 1))
    return (low + (high - low) * along).astype(np.uint8)


def letter(training: Pixels, rng: np.random.Generator) -> Pixels:
    """A letter, light on dark, that is no digit's double."""
    channels, height, width = training.shape[1:]
    font = ImageFont.load_default(56)
    image = Image.new("L", (72, 72), 0)
    draw, text = ImageDraw.Draw(image), LETTERS[rng.integers(len(LETTERS))]
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    draw.text(
        (36 - (left + right) / 2, 36 - (top + bottom) / 2), text, fill=int(rng.integers(180, 256)), font=font
    )
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return np.broadcast_to(small, (channels, height, width)).astype(np.uint8)


KINDS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "noise": noise,
    "shuffled": shuffled,
    "flat": flat,
    "ramp": ramp,
    "letter": letter,
}


def save(pixels: Pixels) -> Image.Image:
    """As a picture."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
