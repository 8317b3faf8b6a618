"""Where a project's diffusion takes place, and what its network is told: the data as a network sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guda_cli.data.classes import Classes
from guda_cli.data.dataset import Dataset, Pixels
from guda_cli.data.images import to_float
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.families.family import CLASS, PROMPT, check_package
from guda_cli.families.known import named
from guda_cli.sections import DROPOUT
from guda_cli.unlearning.operators.base import TextProblem
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.keys.steps import check_one_group
from guda_cli.workflow.models.parts import Parts
from guda_cli.workflow.models.pixel_tensor import tensor_of
from guda_cli.workflow.models.text_problem import text_problem
from guda_cli.workflow.project.compute import Compute
from guda_cli.workflow.project.project import Project


class Space(ABC):
    """What a network is trained on (x0) and told (conditions), seen from images, classes and prompts."""

    clips: bool
    """Whether x0 lies in [-1, 1]."""

    def __init__(self, project: Project, compute: Compute) -> None:
        self.project, self.compute, self.family = project, compute, project.family
        self.told = self.family.told(project.recipe)
        self.parts = Parts(project, compute)

    # -- x0 ----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W] of x0."""

    @property
    @abstractmethod
    def training_images(self) -> Tensor:
        """What the network is trained on: uint8 pixels [N, C, H, W], or latents. See `denoiser.to_x0`."""

    @abstractmethod
    def taken_in(self, data: Dataset) -> Tensor:
        """The same of other images: what the network would be trained on, were they training images."""

    @abstractmethod
    def x0(self, pixels: Pixels, digests: Sequence[str]) -> Tensor:
        """x0 float32 [N, C, H, W] of uint8 images with these pixel digests."""

    @abstractmethod
    def images(self, x0: Tensor) -> Pixels:
        """uint8 images [N, C, H, W] of x0."""

    @abstractmethod
    def spread(self, values: Array) -> Array:
        """A map over x0's places [h, w] as one over the image's pixels."""

    # -- conditions --------------------------------------------------------------------------------

    @cached_property
    def training_conditions(self) -> Tensor | None:
        """Condition of every training image, int64 [N]: its prompt in the bank, or its class, or None.

        A class is the image's group, in sorted order. RecipeError when an image is in several groups.
        """
        return self.parts.training_prompts if self.told == PROMPT else self.told_with(self.project.dataset())

    def told_with(self, data: Dataset) -> Tensor | None:
        """The same of the images of `data`, which has the groups of the training images."""
        if self.told == PROMPT:
            return self.parts.bank.indices([text or "" for text in data.prompts])
        if self.told != CLASS:
            return None
        check_one_group(self.project.data)
        return torch.from_numpy(data.membership.argmax(axis=1).astype(np.int64))

    def conditions(self, names: Sequence[str | None], classes: Classes | None) -> Tensor | None:
        """Conditions int64 [N] by class name or prompt, None the null one; None for unconditional networks.

        DataError as `Classes.index`.
        """
        if self.told == PROMPT:
            return self.parts.bank.indices([name or "" for name in names])
        if classes is None:
            return None
        return torch.tensor([classes.index(name) for name in names], dtype=torch.int64)

    @property
    def dropout(self) -> float:
        """Share of the training images shown without their condition."""
        return float(getattr(self.project.recipe.train, DROPOUT[self.told])) if self.told else 0.0

    def text_problem(self, removal: Removal) -> TextProblem | None:
        """Prompts and styles for `removal`, where the network reads prompts."""
        return text_problem(self.project, self.parts, removal) if self.told == PROMPT else None

    # -- networks ----------------------------------------------------------------------------------

    def denoiser(self, network: torch.nn.Module, schedule: Schedule) -> Network:
        """The adapter of a network."""
        return self.family.denoiser(network, schedule, self.parts.bank if self.told == PROMPT else None)

    def described(self, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration of a model as it is stored: with its family and what stands around it."""
        return named(self.family, config)

    def prepare(self) -> None:
        """Make what stands around the network: the models' keys need it. RecipeError without its package."""
        check_package(self.family)
        if not self.project.has_parts(self.project.data):
            self.parts.ensure()


class PixelSpace(Space):
    """Images as they are, in [-1, 1]."""

    clips = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Space`."""
        return self.project.data.shape

    @cached_property
    def training_images(self) -> Tensor:
        """See `Space`."""
        return tensor_of(self.project.dataset().images)

    def taken_in(self, data: Dataset) -> Tensor:
        """See `Space`."""
        return tensor_of(data.images)

    def x0(self, pixels: Pixels, digests: Sequence[str]) -> Tensor:
        """See `Space`."""
        return torch.from_numpy(to_float(pixels))

    def images(self, x0: Tensor) -> Pixels:
        """See `Space`."""
        found: Pixels = ((x0 + 1.0) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        return found

    def spread(self, values: Array) -> Array:
        """See `Space`."""
        return values


class LatentSpace(Space):
    """Latents of the family's codec."""

    clips = False

    def __init__(self, project: Project, compute: Compute) -> None:
        super().__init__(project, compute)
        self.size = project.data.shape[1]
        self._known: dict[str, Tensor] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Space`."""
        return self.parts.codec.shape(self.size)

    @property
    def training_images(self) -> Tensor:
        """See `Space`."""
        return self.parts.latents

    def taken_in(self, data: Dataset) -> Tensor:
        """See `Space`."""
        posterior = self.project.recipe.latent.posterior
        return self.parts.codec.encode(tensor_of(data.images), posterior=posterior)

    def x0(self, pixels: Pixels, digests: Sequence[str]) -> Tensor:
        """See `Space`: posterior means, so that an image has one latent. Those of the last call are kept."""
        fresh = [i for i, digest in enumerate(digests) if digest not in self._known]
        encoded = self.parts.codec.encode(torch.from_numpy(np.ascontiguousarray(pixels[fresh])))
        known = self._known | dict(zip([digests[i] for i in fresh], encoded, strict=True))
        self._known = {digest: known[digest] for digest in digests}
        return torch.stack([known[digest] for digest in digests])

    def images(self, x0: Tensor) -> Pixels:
        """See `Space`."""
        found: Pixels = self.parts.codec.decode(x0).numpy()
        return found

    def spread(self, values: Array) -> Array:
        """See `Space`; the sum stays."""
        return np.asarray(self.family.spread(values, self.size))

    def described(self, config: dict[str, Any]) -> dict[str, Any]:
        """See `Space`. The parts are those of a registered model, where it has others than its base."""
        posterior = {"posterior": self.project.recipe.latent.posterior}
        return posterior | super().described(config) | {"parts": self.parts.digests()}


def open_space(project: Project, compute: Compute) -> Space:
    """The space of the project's family; RecipeError where a package that it needs is not installed."""
    check_package(project.family)
    return (LatentSpace if project.family.latent else PixelSpace)(project, compute)
