"""By what the groups of an image are ranked: scores, or scores made comparable between unlike groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from guda_cli.attribution.calibration import Calibration
from guda_cli.errors import UsageError
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.scoring.refining import Scores

AUTO, SCORE, Z, PER_IMAGE = "auto", "score", "z", "per-image"
KINDS = (AUTO, SCORE, Z, PER_IMAGE)
ALIKE = 2.0  # groups whose sizes differ by no more than this are ranked by score


@dataclass(frozen=True)
class Ranking:
    """`kind` is SCORE, Z or PER_IMAGE; `sizes` are images of each group, in the order of the scores."""

    kind: str
    sizes: tuple[int, ...]

    def values(self, scores: Scores, calibration: Calibration | None) -> Scores:
        """What is ranked [Q, G], with its error."""
        if self.kind == PER_IMAGE:
            scale = np.array(self.sizes, dtype=np.float64)
            value = scores.value / scale
        elif self.kind == Z and calibration is not None:
            scale, value = calibration.others[1], calibration.z(scores.value)
        else:
            return scores
        spread = None if scores.spread is None else scores.spread / scale
        return replace(scores, value=value, se=scores.se / scale, spread=spread)

    @property
    def words(self) -> str:
        """How the ranking is told; nothing where it is the scores'."""
        return {
            Z: "ranked by z: scores beside what the group scores on others' images",
            PER_IMAGE: "ranked by score an image of the group",
        }.get(self.kind, "")


def check(kind: str) -> str:
    """`kind`; UsageError for none."""
    if kind not in KINDS:
        raise UsageError(
            f"unknown ranking '{kind}'", why="it is one of " + ", ".join(KINDS), fix="--rank auto"
        )
    return kind


def choose(kind: str, groups: Sequence[Removal], counts: Mapping[str, int], *, calibrated: bool) -> Ranking:
    """The ranking typed as `kind`.

    AUTO is by score, and by z where groups' sizes differ by more than ALIKE: a large group scores higher on
    every image, as removing it takes more of the model away. UsageError for z without anything calibrated.
    """
    sizes = tuple(max(1, what.images(counts)) for what in groups)
    if check(kind) == AUTO:
        unlike = max(sizes, default=1) > ALIKE * min(sizes, default=1)
        kind = Z if unlike and calibrated else SCORE
    if kind == Z and not calibrated:
        raise UsageError(
            "--rank z needs verdicts to be calibrated",
            why="score.calibration is 0, or there are too few training images",
            fix="--rank per-image",
        )
    return Ranking(kind, sizes)
