"""What a rival method must do: prepare once, then score training images, or groups, for queries.

A method is a file here and a row of `attribution.methods`. It knows nothing of the store: what it needs comes
in a `Context`, what it makes goes back as arrays. Importing this module imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Mask, Pixels
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array

if TYPE_CHECKING:
    from guda_cli.diffusion.cells import Samples
    from guda_cli.diffusion.denoiser import Network

Arrays = dict[str, Any]
Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class FullModel:
    """The model whose images are explained, and the pool as it sees it: in its own space, with conditions."""

    denoiser: Network
    """In evaluation mode, its weights frozen."""
    batch_size: int
    """Rows of one forward."""
    of_pool: Callable[[], Samples]
    """The pool's N images."""
    of_queries: Callable[[Sequence[Query]], Samples]
    """Queries, each under its first condition."""
    untrained: Callable[[], Network]
    """The same network as its training began, in evaluation mode."""
    moves: Callable[[str], bool]
    """Which parameters, by name, unlearning a query moves."""
    flip: bool = False
    """Whether the pool is looked at in both orientations, as training showed it."""

    @cached_property
    def pool(self) -> Samples:
        """`of_pool()`, made once."""
        return self.of_pool()

    @cached_property
    def seen(self) -> Samples:
        """The pool's N images and, with `flip`, their N mirror images after them; these have own noise."""
        if not self.flip:
            return self.pool
        import torch

        from guda_cli.diffusion.cells import Samples

        images, digests, labels = self.pool.images, self.pool.digests, self.pool.labels
        return Samples(
            torch.cat([images, images.flip(-1)]),
            (*digests, *(f"{digest} mirrored" for digest in digests)),
            None if labels is None else torch.cat([labels, labels]),
        )

    def orientations(self, found: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What was `found` [M, ...] for the images of `seen`, by orientation and image: [1 or 2, N, ...]."""
        return found.reshape(1 + self.flip, -1, *found.shape[1:])


@dataclass(frozen=True, eq=False)
class Context:
    """The settings, the training images and the full model that a method works with.

    The pool are the N training images that are scored: `training[indices]`, of these pixel digests.
    """

    values: Mapping[str, Any]
    """The settings that the method reads, by name."""
    training: Pixels
    """Every training image: uint8 [M, C, H, W]."""
    membership: Mask
    """Which of the G groups each training image is in: [M, G]."""
    indices: npt.NDArray[np.int64]
    digests: tuple[str, ...]
    load: Callable[[], FullModel]
    """Loads the full model: costly."""
    encoder: str = ""
    """Name of the encoder of images, as it was typed."""
    device: str = "auto"
    """Where networks run, as it was asked for: auto, cpu, cuda, ..."""

    @cached_property
    def model(self) -> FullModel:
        """The full model, loaded when it is first asked for."""
        return self.load()


@dataclass(frozen=True)
class Prepared:
    """Arrays that a method computes once, what they cost in forward-equivalents, and facts to record."""

    arrays: Arrays
    forwards: float
    facts: Mapping[str, Any]


class Engine(ABC):
    """A method that scores training images: `prepare` once, then `scores` from what was prepared."""

    def __init__(self, context: Context) -> None:
        self.context, self.values = context, context.values

    @abstractmethod
    def expected_forwards(self) -> int:
        """Forward-equivalents of `prepare`, for its progress bar."""

    @abstractmethod
    def prepare(self, advance: Advance) -> Prepared:
        """What every query needs; `advance` hears forward-equivalents as they are done."""

    @abstractmethod
    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """Scores [queries, N] of the pool's images and the forward-equivalents they cost."""


class GroupEngine(ABC):
    """A method that scores groups by their names, on the spot: nothing is prepared, nothing kept."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        """The settings that the method reads, by name."""

    @abstractmethod
    def group_scores(self, digests: Sequence[str], names: Sequence[str]) -> Array:
        """Scores float64 [queries, groups] of queries with these pixel digests and groups of these names."""
