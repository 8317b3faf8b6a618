"""The settings of a method that scores training images or groups, from a recipe; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from guda_cli.attribution import methods
from guda_cli.attribution.methods import Method
from guda_cli.attribution.rivals.embeddings import PIXELS
from guda_cli.sections import AttributionSpec

ENCODER = "encoder"


@dataclass(frozen=True)
class MethodSettings:
    """A method and the settings that decide its scores; `aggregate` is chosen when these are read."""

    method: str
    values: Mapping[str, Any]
    aggregate: str
    encoder: str = ""  # as typed; `values` hold what it is, not where

    @property
    def row(self) -> Method:
        """The method's row."""
        return methods.find(self.method)

    @property
    def scores_images(self) -> bool:
        """Whether it scores training images."""
        return self.row.kind == methods.IMAGES

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
    values = methods.values(methods.find(method), spec)
    if ENCODER not in values:
        return MethodSettings(method, values, spec.aggregate)
    return MethodSettings(method, {**values, ENCODER: _identity(spec.encoder)}, spec.aggregate, spec.encoder)


def _identity(encoder: str) -> str:
    """`pixels`, or the digest of an encoder's files; errors as `vision_encoder.locate`."""
    if encoder == PIXELS:
        return encoder
    from guda_cli.attribution.rivals.vision_encoder import identity, locate

    return identity(locate(encoder))
