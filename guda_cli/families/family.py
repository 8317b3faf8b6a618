"""What a kind of model is. Everything that is peculiar to one stands in its own module beside this one.

No torch at import: keys, plans and reports ask a family about configurations, not about networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from guda_cli.checkpoints.components import PartsRead
from guda_cli.errors import DataError, RecipeError
from guda_cli.sections import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.denoiser import Network
    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.prompt_bank import PromptBank, Rows
    from guda_cli.diffusion.schedule import Schedule
    from guda_cli.diffusion.weight_file import PackedWeights
    from guda_cli.training.loop import Hooks
    from guda_cli.training.run_state import RunState

CLASS, PROMPT = "class", "prompt"
"""What a network may be told of each image; "" is nothing."""


@dataclass(frozen=True)
class Traits:
    """What a model can be asked for, by its configuration."""

    told: str = ""
    """CLASS, PROMPT or nothing."""
    null: bool = False
    """Whether it was also trained to do without."""
    attention: bool = False
    cross_attention: bool = False
    blocks: tuple[str, ...] = ()
    """Names of its blocks, for messages."""


@dataclass(frozen=True, eq=False)
class Taken:
    """A model read from somebody's files, to be stored in float32, and sentences about it."""

    weights: PackedWeights
    config: dict[str, Any]
    """Without the digests of its parts, which are known when they have been stored."""
    schedule: Schedule
    parts: Mapping[str, bytes | PackedWeights] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What its record says beside where it came from."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a model that is taken over has to fit: a recipe and its data."""

    recipe: Recipe
    shape: tuple[int, int, int]
    """[C, H, W] of the images."""
    groups: Mapping[str, int]
    check_one_group: Callable[[], None]
    """RecipeError unless every image is in one group, so that it can be the image's class."""
    some: Callable[[], Tensor]
    """A few of the images, uint8 [n, C, H, W]."""
    trained: bool = False
    """Whether the model was trained on these images already."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What a part is trained on."""

    recipe: Recipe
    images: Tensor
    """uint8 [N, C, H, W]."""
    prompts: Sequence[str]
    parts: PartsRead
    """Those made before it."""
    device: torch.device


@dataclass(frozen=True)
class Maker:
    """How a part that no pipeline brings is trained: an action of its own in the store."""

    operation: str
    what: str
    outputs: tuple[str, ...]
    needs: tuple[str, ...]
    """Outputs of earlier makers that it reads."""
    params: Callable[[Recipe], dict[str, Any]]
    """What of the recipe decides it."""
    size: Callable[[Recipe], tuple[int, int]]
    """Steps, and images a step."""
    make: Callable[[Materials, RunState | None, Hooks], dict[str, bytes | PackedWeights]]


class Codec(Protocol):
    """Between images and the x0 that a network works on."""

    def encode(
        self, images: Tensor, *, posterior: str = "mean", digests: Sequence[str] | None = None
    ) -> Tensor:
        """x0 float32 [N, c, h, w] on the CPU of uint8 `images` [N, C, H, W], normalised for the network."""
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """uint8 images [N, C, H, W] on the CPU of x0 [N, c, h, w]."""
        ...

    def shape(self, size: int) -> tuple[int, int, int]:
        """[c, h, w] of the x0 of a `size` x `size` image."""
        ...


class PromptEncoder(Protocol):
    """What makes conditions of prompts."""

    def rows(self, texts: Sequence[str]) -> Rows:
        """Named tensors, each [n, ...] with one row a text, independent of each other."""
        ...

    def unit_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Vectors of length 1 [n, D] in which texts alike lie close."""
        ...

    def cut(self, texts: Sequence[str]) -> Mapping[str, str]:
        """What is beyond what is read, of those of `texts` of which not all is."""
        ...


class Family(ABC):
    """One kind of model. Stateless: what it makes holds the state."""

    name: ClassVar[str]
    network: ClassVar[str]
    """The denoiser's name among a pipeline's components, and in stored configurations."""
    latent: ClassVar[bool] = False
    """Whether x0 is what a codec makes of the images, and not the images themselves."""
    prompts: ClassVar[bool] = False
    """Whether its networks read prompts."""
    codec_parts: ClassVar[tuple[str, ...]] = ()
    prompt_parts: ClassVar[tuple[str, ...]] = ()
    """Names of the stored outputs that hold what stands around the network."""
    weighty_parts: ClassVar[tuple[str, ...]] = ()
    """Those of them that are weights."""
    makers: ClassVar[tuple[Maker, ...]] = ()
    """How these are trained where no pipeline brings them, in order; empty: one has to."""
    package: ClassVar[str] = ""
    """A package that it needs beside the plain install, and the extra that brings it."""
    extra: ClassVar[str] = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts around the network."""
        return self.codec_parts + self.prompt_parts

    def told(self, recipe: Recipe) -> str:
        """What networks of `recipe` are told of each image: CLASS, PROMPT or "" for nothing."""
        if self.prompts:
            return PROMPT
        return CLASS if recipe.model.class_conditional else ""

    # -- configurations ----------------------------------------------------------------------------

    @abstractmethod
    def configs(
        self, recipe: Recipe, shape: tuple[int, int, int], groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Of a model trained from scratch on images of `shape`: of the network, of the scheduler, classes."""

    @abstractmethod
    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        """What a network of configuration `config` (the network's part of a model's) can be asked for."""

    def schedule(self, config: Mapping[str, Any]) -> Schedule:
        """The forward process of the scheduler's configuration `config`; see `schedule.from_config`."""
        from guda_cli.diffusion.schedule import from_config

        return from_config(config)

    def prediction(self, config: Mapping[str, Any]) -> str:
        """What the scheduler's configuration says that the network predicts: a name in PREDICTIONS."""
        return str(config.get("prediction_type") or "epsilon")

    def check_recipe(self, recipe: Recipe) -> None:
        """RecipeError for entries that contradict each other in this kind of model."""
        return

    def check_start(self, recipe: Recipe) -> None:
        """RecipeError where a training cannot start from what `recipe` says."""
        return

    # -- networks ----------------------------------------------------------------------------------

    @abstractmethod
    def build(self, config: Mapping[str, Any], seed: int) -> torch.nn.Module:
        """A network of configuration `config`, weights drawn from `seed`; DataError where it cannot be."""

    @abstractmethod
    def denoiser(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None) -> Network:
        """The adapter of a network; `bank` holds the prompts that its conditions are indices of."""

    def null_class(self, config: Mapping[str, Any], count: int) -> int | None:
        """Index of the null class of a network of `count` classes, configuration `config`; None without."""
        has_null = config.get("null_class", True) and config["num_class_embeds"] > count
        return count if has_null else None

    def moves_for_query(self, name: str) -> bool:
        """Whether unlearn-query moves the parameter of that name."""
        return True

    def width(self, config: Mapping[str, Any]) -> int:
        """Channels of the feature maps of the network's first block, for an estimate of memory."""
        return int(config["block_out_channels"][0])

    def learned_variance(self, config: Mapping[str, Any]) -> bool:
        """Whether the network also puts out a variance, which scoring does not use."""
        return bool(config.get("out_channels", 0) == 2 * config.get("in_channels", 1))

    # -- what stands around them -------------------------------------------------------------------

    def codec(self, parts: PartsRead, device: torch.device) -> Codec:
        """Of a family in latents: the one that `codec_parts` hold."""
        raise DataError(f"{self.name} models have no codec")

    def encoder(self, parts: PartsRead, device: torch.device) -> PromptEncoder:
        """Of a family that reads prompts: the one that `prompt_parts` hold."""
        raise DataError(f"{self.name} models read no prompts")

    def spread(self, values: Any, size: int) -> Any:
        """A map over x0's places [h, w] as one over the pixels of a `size` x `size` image, sums kept."""
        return values

    # -- files of others ---------------------------------------------------------------------------

    pipelines: ClassVar[tuple[str, ...]] = ()
    """Classes of pipelines, in `model_index.json`, that a model of this kind is told by."""
    starts: ClassVar[bool] = False
    """Whether a training may start from a model that `guda train --from` names."""

    @abstractmethod
    def take(self, source: str, beside: str | None, wanted: Wanted) -> Taken:
        """The model at `source` (a folder, a file, a hub id), checked against what is `wanted`.

        `beside` is where the rest of it lies: of a family that `starts`, the pipeline that it belongs to; of
        others the folder of its noise schedule. Safetensors only. DataError, UsageError, MissingError.
        """

    def begins_at(self, source: str, base: str) -> bool:
        """Whether `base` is a model that a training can start from, and not only `source`'s configuration."""
        return False

    @abstractmethod
    def write(self, folder: Any, weights: Weights, config: Mapping[str, Any], parts: PartsRead) -> None:
        """Write a model into `folder`, which is there, as its pipeline, which diffusers opens; DataError."""

    def taken_over(self, recipe: Recipe, facts: Mapping[str, Any]) -> Recipe:
        """`recipe` as a full model with these `facts` asks for it."""
        return recipe

    def shapes(self, config: Mapping[str, Any]) -> dict[str, list[int]]:
        """Shape of every weight of a network of configuration `config`, by name; nothing is drawn."""
        import torch

        with torch.device("meta"):
            return {name: list(value.shape) for name, value in self.build(config, 0).state_dict().items()}

    def sharing(self, config: Mapping[str, Any], weights: Weights) -> torch.nn.Module:
        """A network whose parameters are `weights` themselves; see `networks.sharing`."""
        from guda_cli.diffusion import networks

        return networks.sharing(lambda: self.build(config, 0), weights)


def check_package(family: Family) -> None:
    """RecipeError where the package that the family needs is not installed."""
    import importlib.util

    if family.package and importlib.util.find_spec(family.package) is None:
        raise RecipeError(
            f"text-to-image recipes need the package {family.package}",
            fix=f"pip install 'guda[{family.extra}]'",
        )
