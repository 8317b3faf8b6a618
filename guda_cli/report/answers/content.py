"""What a report says, as plain values: every renderer reads these and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SIGN = "Positive: without this group the model explains the image worse, so the group mattered."
HIGHER = "Higher: by this method the image owes more to the group."
NO_GROUP = "no group stands out"

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class GroupScore:
    """One group's score for one query: a delta-ELBO, or what another method gives.

    ``se``, ``low`` and ``high`` are the Monte-Carlo standard error and 95 % interval, None for methods
    without Monte-Carlo error; ``z``, ``p`` and ``stands_out`` compare with what groups score on calibration
    images that are not theirs, and are None where there are none. ``draws`` are the noises a timestep;
    ``spread`` is the deviation between models of several seeds, which the interval then covers too.
    ``retrained`` is what one more retraining would say, with its interval, where some groups' is known.
    """

    group: str
    score: float
    se: float | None = None
    low: float | None = None
    high: float | None = None
    z: float | None = None
    p: float | None = None
    stands_out: bool | None = None
    draws: int | None = None
    spread: float | None = None
    retrained: float | None = None
    retrained_low: float | None = None
    retrained_high: float | None = None


class InstanceScore(NamedTuple):
    """One training image's score for one query; ``pixels`` are uint8 ``[C, H, W]``."""

    name: str
    groups: tuple[str, ...]
    score: float
    pixels: Pixels | None = None


class RaceResult(NamedTuple):
    """What a race for the first ``places`` groups came to: whether they could be told at ``level`` (0 to 1).

    ``forwards`` of all models were looked at for it, those that the store had included.
    """

    places: int
    level: float
    decided: bool
    forwards: int


@dataclass(frozen=True, eq=False)
class QueryResult:
    """One query image with its groups, ranked, highest first.

    ``answer`` names the groups that stand out: empty when none does, None when nothing was calibrated to
    tell. ``unlike`` says that the image is unlike the training data, and that therefore none is named.
    ``pixels`` are uint8 ``[C, H, W]``. ``instances`` are the training images of the highest score, highest
    first, for methods that score single images. ``condition`` is the class it was scored with, ``prompts``
    what it was scored with by a text-to-image model (("",): the empty prompt). ``confidence`` is how sure
    the first group is to be the first, as far as the Monte-Carlo error goes. ``race`` only where groups were
    drawn until the first could be told.
    """

    name: str
    digest: str
    looks_like: str | None
    pixels: Pixels | None
    scores: tuple[GroupScore, ...]
    answer: tuple[str, ...] | None
    elbo_nats: float | None = None
    bits_per_dim: float | None = None
    elbo_se: float | None = None
    instances: tuple[InstanceScore, ...] = ()
    condition: str | None = None
    prompts: tuple[str, ...] = ()
    unlike: bool | None = None
    confidence: float | None = None
    race: RaceResult | None = None


class Counterpart(NamedTuple):
    """What a model without ``group`` draws in an image's place; ``rank`` and ``score`` are the group's.

    ``difference`` is the mean absolute difference to the full model's picture, in levels of 0 to 255.
    """

    group: str
    rank: int
    score: float
    pixels: Pixels
    difference: float


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """One image beside what other models draw from the same noise and settings (``noise`` names them).

    ``redrawn``: the noise is the image's own, and ``drawn``, the full model's drawing, has to be the image
    (``same``; ``difference`` is the mean absolute difference, in levels of 0 to 255). Otherwise ``drawn`` is
    another picture with the image's class or prompt, ``condition``.
    """

    image: str
    digest: str
    pixels: Pixels
    drawn: Pixels
    redrawn: bool
    same: bool
    difference: float
    counterparts: tuple[Counterpart, ...]
    noise: Mapping[str, Any]
    condition: str | None = None


@dataclass(frozen=True, eq=False)
class Gallery:
    """The images as models draw them that never saw one group; ``notes`` say what is left out and why."""

    rows: tuple[GalleryRow, ...]
    notes: tuple[str, ...] = ()


class GroupImages(NamedTuple):
    """Training images of one group: (name, uint8 ``[C, H, W]``) of each."""

    group: str
    pictures: tuple[tuple[str, Pixels], ...]


class Training(NamedTuple):
    """Training images of the groups that images are owed to, by the images' digests.

    At most ``each`` a group, the nearest by their pixels first, of at most ``groups`` groups an image.
    """

    each: int
    groups: int
    of: Mapping[str, tuple[GroupImages, ...]]


class Maps(NamedTuple):
    """Per-pixel delta-ELBO ``[H, W]`` of the highest groups of the first images, by the images' digests."""

    of: Mapping[str, tuple[tuple[str, Map], ...]]


class Change(NamedTuple):
    """How much pictures change by one measure, means over images: ``top`` and ``others`` as `Regenerated`.

    ``low`` to ``high`` is the 95 % interval of the paired ``difference``, None with one image; ``share`` of
    the images change more without their highest groups.
    """

    measure: str
    unit: str
    top: float
    others: float
    difference: float
    low: float | None
    high: float | None
    share: float


class Regenerated(NamedTuple):
    """One image drawn from its own noise without its highest ``groups``, and without ``others``.

    ``changes`` by measure: without the groups, and the mean over the others.
    """

    image: str
    digest: str
    groups: tuple[str, ...]
    others: tuple[str, ...]
    changes: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Regeneration:
    """Do pictures change more without their ``top`` highest groups than without as many others?

    ``by`` is the method whose models drew; ``notes`` say what is left out and why.
    """

    top: int
    by: str
    rows: tuple[Regenerated, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """Did unlearning one group do its work: denoising loss per pixel, full against unlearned model.

    ``verdict`` is ``passed``, ``doubtful`` or ``failed``; where it is not given ``passed`` says which.
    ``held_out`` has the four losses on images that no training saw, ``membership`` how well (area under the
    curve, `before` and `after` with `_se`) the loss tells the group's training images from held-out ones;
    both only where images were held out.
    """

    group: str
    group_before: float
    group_after: float
    rest_before: float
    rest_after: float
    passed: bool
    why: str
    verdict: str = ""
    held_out: Mapping[str, float] | None = None
    membership: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not self.verdict:
            object.__setattr__(self, "verdict", "passed" if self.passed else "failed")


@dataclass(frozen=True)
class CostRow:
    """What one step cost; ``forwards`` are forward-equivalents (a backward counts 2)."""

    step: str
    what: str
    seconds: float | None
    forwards: float | None
    status: str
    created: str


class Looks(NamedTuple):
    """How often the nearest training images by pixels name a right group, on ``images`` of the training data.

    Where that is too seldom, ``shown`` is False and no query has a ``looks_like``.
    """

    accuracy: float
    images: int
    shown: bool


class GroupMean(NamedTuple):
    """A group's mean score over the queries; ``se`` is None with fewer than two queries."""

    group: str
    mean: float
    se: float | None


class Summary(NamedTuple):
    """The fields of `ReportModel` that follow from its queries: pass them with ``**s._asdict()``."""

    mean_scores: tuple[GroupMean, ...]
    matrix: dict[str, dict[str, float]]
    matrix_counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class ReportModel:
    """Everything one report shows.

    ``weighting_unit`` is ``nats`` only for ``elbo`` over an unbiased grid, else ``weighted squared error``,
    or what another method's scores are, such as ``similarity score``. ``counterfactual`` says whether models
    without the groups were compared; ``weighting``, ``grid`` and ``draws`` may be empty otherwise.
    ``matrix[row][column]`` is the mean score of group ``column`` over the queries that look like ``row``,
    of which there are ``matrix_counts[row]``. ``gallery``, ``regeneration``, ``training`` and ``maps`` are
    there where they were asked for; the last two are for the page alone. ``sentence`` says how the method
    finds out, as the end of a sentence; ``ranked`` by what groups are ranked, where it is not the score.
    ``training_check`` is what the check of the full model found: see `training.soundness.TrainingCheck`;
    ``looks`` how sure ``looks_like`` is.
    """

    title: str
    recipe_name: str
    recipe_yaml: str
    method: str
    weighting: str
    weighting_unit: str
    grid: str
    timesteps: int
    draws: int
    seed: int
    created: str
    groups: tuple[str, ...]
    group_sizes: Mapping[str, int]
    queries: tuple[QueryResult, ...]
    mean_scores: tuple[GroupMean, ...] = ()
    matrix: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    matrix_counts: Mapping[str, int] = field(default_factory=dict)
    training_check: Mapping[str, Any] | None = None
    checks: tuple[Check, ...] = ()
    null: Mapping[str, Any] | None = None
    costs: tuple[CostRow, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    counterfactual: bool = True
    gallery: Gallery | None = None
    sentence: str = ""
    ranked: str = ""
    retraining: Mapping[str, Any] | None = None
    regeneration: Regeneration | None = None
    training: Training | None = None
    maps: Maps | None = None
    looks: Looks | None = None


def score_table(queries: Sequence[QueryResult], groups: Sequence[str]) -> npt.NDArray[np.float64]:
    """Scores as ``[queries, groups]``; NaN where a query has no score for a group."""
    column = {group: j for j, group in enumerate(groups)}
    table = np.full((len(queries), len(groups)), np.nan)
    for i, query in enumerate(queries):
        for entry in query.scores:
            if entry.group in column:
                table[i, column[entry.group]] = entry.score
    return table


def summarise(queries: Sequence[QueryResult], groups: Sequence[str]) -> Summary:
    """Mean score of each group over all queries, and over the queries that look like each group.

    The standard error of a mean is that of the spread over queries, not the Monte-Carlo error. Rows of
    the matrix come in the order of ``groups``; a group that no query looks like has no row.
    """
    table = score_table(queries, groups)
    means = tuple(_mean(group, table[:, j]) for j, group in enumerate(groups))
    looks = np.array([q.looks_like or "" for q in queries], dtype=object)
    labels = {q.looks_like for q in queries if q.looks_like}
    rows = [g for g in groups if g in labels] + sorted(labels - set(groups))
    matrix = {row: {g: _mean(g, table[looks == row, j]).mean for j, g in enumerate(groups)} for row in rows}
    counts = {row: int(np.sum(looks == row)) for row in rows}
    return Summary(means, matrix, counts)


def _mean(group: str, values: npt.NDArray[np.float64]) -> GroupMean:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return GroupMean(group, float("nan"), None)
    se = float(np.std(known, ddof=1) / np.sqrt(known.size)) if known.size > 1 else None
    return GroupMean(group, float(np.mean(known)), se)
