"""A recipe for images of one's own: what is trained on them, for how long, and what all of it costs.

Only the data's size, the number of groups and the speed of this machine decide. The rules come from what was
tried on sets of 240 to 5,000 images in 2 to 50 groups (docs/own-images.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from guda_cli.data.survey import Survey
from guda_cli.errors import UsageError
from guda_cli.phrases import few, plural
from guda_cli.sections import (
    DiffusionSpec,
    ModelSpec,
    Recipe,
    ScoreSpec,
    TrainSpec,
    UnlearnSpec,
)
from guda_cli.unlearning import catalog

SIZES = (64, 48, 32, 24, 16, 12, 8)
LEAST_SIZE = 16  # unless the images are smaller
LARGEST_SIZE = 256  # beyond, a few steps alone would take minutes and many GB
MINUTES = 10.0
BATCH = 32
FLOOR, PASSES = 2000, 20
"""Steps of training at least, and passes over the images that more of them are proposed for."""
SHARE = 1 / 8  # of the training's images that one unlearning sees
LEAST_SHARE, SHARED = 1 / 16, 2.0  # of many groups: all unlearnings see twice what the training sees
LEAST_UNLEARNING = 100  # steps
TIMESTEPS, DRAWS, CALIBRATION = 25, 2, 100
DRAWN = 16  # images that `guda run` samples and scores
TINY = 8  # images of a group below which little can be said of it
HUGE = 10.0  # times the median group


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine: of a forward-equivalent in training, and of a forward that scores."""

    training: float
    scoring: float


@dataclass(frozen=True)
class Costs:
    """Seconds of each part of the plan, and of training again without every group."""

    train: float
    unlearn: float
    sample: float
    score: float
    retrain: float

    @property
    def whole(self) -> float:
        """All that `guda run` does."""
        return self.train + self.unlearn + self.sample + self.score

    @property
    def retraining_is_cheaper(self) -> bool:
        """Whether the oracle costs less than its estimate."""
        return self.retrain <= self.unlearn


@dataclass(frozen=True)
class Proposal:
    """A recipe, why its entries are what they are, and its costs."""

    recipe: Recipe
    reasons: Mapping[str, str]
    costs: Costs
    speed: Speed
    minutes: float

    @property
    def within(self) -> bool:
        """Whether the plan takes no longer than was asked for."""
        return self.costs.whole <= 60.0 * self.minutes


def propose(
    survey: Survey,
    time: Callable[[Recipe], Speed],
    *,
    name: str,
    size: int | None = None,
    minutes: float = MINUTES,
) -> Proposal:
    """The largest images, and then the most steps, that fit into `minutes`; `size` where it is given.

    `time` measures a recipe's network on this machine. Never fewer than FLOOR steps: a shorter training draws
    noise, and of noise nothing can be said.
    """
    for candidate in (size,) if size else sizes(survey):
        recipe = _recipe(survey, name, candidate, FLOOR)
        speed = time(recipe)
        found = costs(recipe, survey, speed)
        if found.whole <= 60.0 * minutes:
            break
    steps = _steps(survey, recipe, speed, minutes)
    recipe = _recipe(survey, name, candidate, steps)
    return Proposal(recipe, _reasons(survey, recipe), costs(recipe, survey, speed), speed, minutes)


def sizes(survey: Survey) -> Iterator[int]:
    """Pixels a side that could be trained on, the most first: no more than the images have."""
    unit = max(4, multiple(survey.median))
    own = {survey.median} if survey.median % unit == 0 and survey.median <= SIZES[0] else set()
    found = own | {size for size in SIZES if LEAST_SIZE <= size <= survey.median}
    yield from sorted(found, reverse=True) or SIZES[-1:]


def multiple(size: int) -> int:
    """What `size` must be a multiple of: every level of its network but the last halves the images."""
    return 1 << (len(network(size).block_out_channels) - 1)


def check_size(size: int) -> None:
    """UsageError, naming the nearest size that does, where no network is proposed for `size` pixels."""
    unit = multiple(size)
    if size < 2 * unit:
        raise UsageError(f"--size {size}: it is too small", fix=f"--size {SIZES[-1]}")
    if size > LARGEST_SIZE:
        raise UsageError(
            f"--size {size}: init proposes networks for up to {LARGEST_SIZE} pixels a side",
            why="larger ones want a recipe of your own: guda recipes show folder",
            fix=f"--size {LARGEST_SIZE}",
        )
    if size % unit:
        raise UsageError(
            f"--size {size}: it must be a multiple of {unit}",
            why="the network halves the images at every level but the last",
            fix=f"--size {size // unit * unit}",
        )


def _steps(survey: Survey, recipe: Recipe, speed: Speed, minutes: float) -> int:
    """PASSES over the images, or what of it fits into the time, FLOOR at least."""
    wanted = math.ceil(PASSES * survey.images / BATCH)
    if wanted <= FLOOR:
        return FLOOR
    found = costs(recipe, survey, speed)
    a_step = (found.train + found.unlearn) / FLOOR
    left = 60.0 * minutes - found.sample - found.score
    return max(FLOOR, min(wanted, int(left / a_step)))


def network(size: int) -> ModelSpec:
    """A small network for images of `size` pixels: about a million weights."""
    if size <= 24:
        return ModelSpec(block_out_channels=(32, 64), norm_num_groups=8)
    widths = (16, 32, 64) if size <= 48 else (16, 32, 64, 64)
    plain = len(widths) - 1
    return ModelSpec(
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        norm_num_groups=8,
        attention_head_dim=8,
        add_attention=True,
    )


def _recipe(survey: Survey, name: str, size: int, steps: int) -> Recipe:
    groups = len(survey.counts)
    share = max(LEAST_SHARE, min(SHARE, SHARED / groups))
    unlearning = max(LEAST_UNLEARNING, round(steps * share))
    return Recipe(
        name=name,
        description=f"{survey.images} images in {groups} groups",
        data=replace(survey.spec, size=size, channels=1 if survey.grey else 3),
        model=network(size),
        diffusion=DiffusionSpec(prediction_type="v_prediction"),
        train=TrainSpec(steps=steps, batch_size=BATCH, lr=2e-3, lr_schedule="cosine"),
        unlearn=UnlearnSpec(t_min=0.2, forget_weight=0.3, batch_size=BATCH, steps=unlearning),
        score=ScoreSpec(timesteps=TIMESTEPS, draws=DRAWS, calibration=min(CALIBRATION, survey.images)),
    )


def costs(recipe: Recipe, survey: Survey, speed: Speed) -> Costs:
    """Seconds of the plan for `recipe`; as many groups are retrained as unlearned."""
    steps = recipe.train.steps or 0
    once = 3.0 * steps * recipe.train.batch_size * speed.training
    removed = [catalog.forwards(recipe.unlearn, count, survey.images) for count in survey.counts.values()]
    cells = recipe.score.timesteps * recipe.score.draws
    scored = (recipe.score.calibration + DRAWN) * (1 + len(removed)) * cells
    return Costs(
        train=once,
        unlearn=sum(removed) * speed.training,
        sample=DRAWN * recipe.sample.steps * speed.scoring,
        score=scored * speed.scoring,
        retrain=once * len(removed),
    )


def _reasons(survey: Survey, recipe: Recipe) -> dict[str, str]:
    """What the recipe's comments say, by section and entry."""
    spec, data = recipe.train, recipe.data
    seen = (spec.steps or 0) * spec.batch_size
    of = recipe.unlearn.steps * recipe.unlearn.batch_size / seen
    native = f"the files have {survey.median} (median of the shorter side)"
    return {
        "data.size": f"pixels a side; {native}, and more take longer",
        "data.channels": "grey" if data.channels == 1 else "RGB",
        "model.block_out_channels": "a small network: few images are learnt by heart by a large one",
        "diffusion.prediction_type": "where noise is high a brief training learns more by v than by epsilon",
        "train.steps": f"{seen / survey.images:,.0f} passes; fewer than {FLOOR:,} steps draw noise",
        "unlearn.steps": f"one unlearning sees {of:.0%} of what the training sees",
        "score.calibration": "training images that verdicts are calibrated on; no null groups are needed",
    }


def remarks(survey: Survey) -> list[str]:
    """What the user should know of the images before anything is trained."""
    out = list(survey.notes)
    counts = sorted(survey.counts.values())
    median = counts[len(counts) // 2]
    tiny = [name for name, count in survey.counts.items() if count < TINY]
    huge = [name for name, count in survey.counts.items() if count > HUGE * median]
    if tiny:
        out.append(f"fewer than {TINY} images: {few(tiny, 3)}; little can be said of so small a group")
    if huge:
        out.append(
            f"more than {HUGE:g} times the median group of {median}: {few(huge, 3)}; groups are ranked by z"
        )
    for pairs, what in (
        (survey.same, "the same as another image of the group"),
        (survey.same_across, "the same as an image of another group: neither can be told from the other"),
        (survey.near, "nearly the same as another image of the group"),
        (survey.near_across, "nearly the same as an image of another group"),
    ):
        if pairs:
            example = f"{pairs[0][0]} and {pairs[0][1]}"
            out.append(f"{plural(len(pairs), 'image is', 'images are')} {what} ({example})")
    if survey.prompts:
        captions = plural(survey.prompts, "image has a caption", "images have captions")
        out.append(f"{captions}: for text-to-image models see guda recipes show paintings")
    for model in survey.models[:3]:
        out.append(f"{model} looks like a model: guda train --from takes over one trained on these images")
    return out
