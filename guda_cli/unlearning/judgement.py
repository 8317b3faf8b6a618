"""What the check of an unlearned model says: `passed`, `doubtful` or `failed`, and why. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from guda_cli.diffusion.schedule import Array
from guda_cli.phrases import without_exponents
from guda_cli.unlearning import membership
from guda_cli.unlearning.membership import Auc

PASSED, DOUBTFUL, FAILED = "passed", "doubtful", "failed"
# The rest's loss may rise by this share. On the digits, models 13 % above went with the oracle of held-out
# groups as well as those 5 % above (forget_weight 1.0 and 0.3, docs/results): less warns of sound models.
KEPT_WITHIN = 0.10


class Sides(NamedTuple):
    """Losses of a group's images and of the rest's, each [n]."""

    group: Array
    rest: Array


@dataclass(frozen=True, eq=False)
class Losses:
    """One model's: on training images, and on held-out ones where there are some."""

    training: Sides
    held_out: Sides | None = None
    membership: tuple[Array, Array] | None = None
    """Of single images of the group, comparable with each other: trained on [n], and held out [m]."""


@dataclass(frozen=True)
class Means:
    """Mean loss per pixel on the group and on the rest, full model against unlearned model."""

    group_before: float
    group_after: float
    rest_before: float
    rest_after: float

    @staticmethod
    def of(before: Sides, after: Sides) -> Means:
        """Those of two models on the same images."""
        found = (before.group, after.group, before.rest, after.rest)
        return Means(*(float(values.mean()) for values in found))


@dataclass(frozen=True)
class CheckResult:
    """What was measured and what it says; of held-out images where there are some."""

    means: Means
    verdict: str
    why: str
    held_out: Means | None = None
    membership: tuple[Auc, Auc] | None = None
    """Before and after."""

    @property
    def passed(self) -> bool:
        """Whether nothing is against it."""
        return self.verdict == PASSED

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a stored record."""
        found = {**asdict(self.means), "passed": self.passed, "verdict": self.verdict, "why": self.why}
        if self.held_out:
            found["held_out"] = asdict(self.held_out)
        if self.membership:
            before, after = self.membership
            found["membership"] = {
                "before": before.value, "before_se": before.se, "after": after.value, "after_se": after.se,
            }  # fmt: skip
        return found


def completed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A stored check with its verdict, which earlier versions' do not have, and numbers for people."""
    found = {"verdict": PASSED if record["passed"] else FAILED, **record}
    return found | {"why": without_exponents(str(found.get("why", ""))).replace("(-", "(−")}


def judge(before: Losses, after: Losses) -> CheckResult:
    """The verdict on an unlearned model (`after`) by the same images' losses under the full one (`before`).

    It failed where the group's loss did not rise or the rest's rose by more than KEPT_WITHIN. Unlearning
    steps also train: where the full model was still learning, every loss falls, and the group's rise is
    measured from how far the rest's fell. That makes it doubtful, as does a rise within two standard errors,
    and held-out images that say otherwise.
    """
    rise = _Rise.of(before.training, after.training)
    kept, why_not = _kept(before.training, after.training)
    failed = [] if rise.there else [f"the group's loss did not rise ({rise})"]
    failed += [] if kept else [f"the loss on the rest rose too much ({why_not})"]
    aucs = _membership(before, after)
    doubts = [*rise.doubts("the group's loss"), *_held_out(before, after), *_told_apart(aucs)]
    verdict = FAILED if failed else DOUBTFUL if doubts else PASSED
    why = "; ".join(failed or doubts) or f"the group's loss rose ({rise}), the rest's was kept ({why_not})"
    held = Means.of(before.held_out, after.held_out) if before.held_out and after.held_out else None
    return CheckResult(Means.of(before.training, after.training), verdict, why, held, aucs)


@dataclass(frozen=True)
class _Rise:
    """By how much a group's loss rose, against how far the rest's fell; each with its standard error."""

    own: float
    fell: float
    se: float
    fell_se: float

    @staticmethod
    def of(before: Sides, after: Sides) -> _Rise:
        rise, drift = after.group - before.group, after.rest - before.rest
        fell, fell_se = min(float(drift.mean()), 0.0), _error(drift)
        variance = _error(rise) ** 2 + (fell_se**2 if fell < 0.0 else 0.0)
        return _Rise(float(rise.mean()), fell, float(np.sqrt(variance)), fell_se)

    @property
    def there(self) -> bool:
        return self.own - self.fell > 0.0  # not where a loss is NaN

    def doubts(self, of: str) -> list[str]:
        if not self.there:
            return []
        out = [] if self.own - self.fell > 2.0 * self.se else [f"{of} rose within its error ({self})"]
        if -self.fell > 2.0 * self.fell_se:
            out.append(f"the full model was still learning: the rest's loss fell ({self})")
        return out

    def __str__(self) -> str:
        against = f", the rest's {self.fell:+.2e}" if self.fell < 0.0 else ""
        return f"{self.own:+.2e} ± {self.se:.1e}{against}"


def _error(values: Array) -> float:
    return float(values.std(ddof=1)) / float(np.sqrt(len(values)))


def _kept(before: Sides, after: Sides) -> tuple[bool, str]:
    """Whether the rest's loss was kept, and by which share it changed."""
    old, new = float(before.rest.mean()), float(after.rest.mean())
    return new <= (1.0 + KEPT_WITHIN) * old, f"{new / old - 1.0:+.1%}, at most {KEPT_WITHIN:.0%}"


def _held_out(before: Losses, after: Losses) -> list[str]:
    """In what held-out images disagree with a model that the training images are content with."""
    if before.held_out is None or after.held_out is None:
        return []
    rise, where = _Rise.of(before.held_out, after.held_out), "on held-out images"
    out = [] if rise.there else [f"{where} the group's loss did not rise ({rise})"]
    out += [doubt for doubt in rise.doubts(f"{where} the group's loss") if doubt.startswith(where)]
    kept, change = _kept(before.held_out, after.held_out)
    return out + ([] if kept else [f"{where} the loss on the rest rose too much ({change})"])


def _membership(before: Losses, after: Losses) -> tuple[Auc, Auc] | None:
    if before.membership is None or after.membership is None:
        return None
    return membership.auc(*before.membership), membership.auc(*after.membership)


def _told_apart(aucs: tuple[Auc, Auc] | None) -> list[str]:
    if aucs is None or not aucs[1].beyond:
        return []
    found = f"AUC {aucs[1].value:.2f} ± {aucs[1].se:.2f}, before {aucs[0].value:.2f}"
    return [f"the group's training images can be told from held-out ones ({found})"]
