"""The rival methods by name, the settings each reads and what each needs; imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from guda_cli.attribution.rivals.embeddings import PIXELS
from guda_cli.errors import UsageError, unknown
from guda_cli.sections import AttributionSpec

INFLUENCE = {"trak": "loss", "d-trak": "square", "das": "mean"}
"""Methods of projected gradients and what each differentiates."""
RANDOM = "random"
# What enters the key of a method's scores; `aggregate` is chosen when they are read.
READS: Mapping[str, tuple[str, ...]] = {
    "similarity": ("encoder",),
    **dict.fromkeys(INFLUENCE, ("per_group", "timesteps", "draws", "projection", "ridge", "seed")),
    "unlearn-query": ("per_group", "timesteps", "draws", "seed", "query_rise", "damping"),
    "mucs": ("per_group", "timesteps", "draws", "seed", "mucs_steps", "mucs_lr"),
    RANDOM: ("seed",),
}
METHODS = tuple(READS)


@dataclass(frozen=True)
class MethodSettings:
    """A method and the settings that decide its scores of training images."""

    method: str
    values: Mapping[str, Any]
    aggregate: str
    encoder: str = ""  # as typed; `values` hold what it is, not where

    @property
    def scores_images(self) -> bool:
        """Whether it scores training images (all but `random` do)."""
        return self.method != RANDOM

    @property
    def plain_pixels(self) -> bool:
        """Whether it compares pixels as they are, without any network."""
        return self.encoder == PIXELS

    @property
    def name(self) -> str:
        """As tables call it: `similarity (pixels)`, `trak`."""
        return f"{self.method} ({PurePath(self.encoder).name})" if self.encoder else self.method


def settings(method: str, spec: AttributionSpec) -> MethodSettings:
    """The settings of `method` in a recipe; UsageError naming the nearest for an unknown one."""
    if method not in READS:
        raise UsageError(unknown("method", method, METHODS))
    values = dataclasses.asdict(spec)
    if method != "similarity":
        return MethodSettings(method, {name: values[name] for name in READS[method]}, spec.aggregate)
    return MethodSettings(method, {"encoder": _identity(spec.encoder)}, spec.aggregate, spec.encoder)


def _identity(encoder: str) -> str:
    """`pixels`, or the digest of an encoder's files; errors as `vision_encoder.locate`."""
    if encoder == PIXELS:
        return encoder
    from guda_cli.attribution.rivals.vision_encoder import identity, locate

    return identity(locate(encoder))
