"""More draws where they are needed: where a verdict hangs in the balance, or an answer is not sure enough.

Only the full model and the groups in question are drawn again, each time as often as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from guda_cli import typed_number
from guda_cli.attribution.calibration import Calibration
from guda_cli.attribution.delta_elbo import Estimate
from guda_cli.data.dataset import Mask
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import UsageError

BALANCE = 1.0  # standard errors within which a score is neither above a threshold nor below it


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores [Q, G] with their errors, the errors' degrees of freedom, and the draws each comes from.

    Where there are several `seeds` of each model, scores are their mean and `spread` [Q, G] is the deviation
    between them.
    """

    value: Array
    se: Array
    df: Array
    draws: npt.NDArray[np.int64]
    spread: Array | None = None
    seeds: int = 1

    @staticmethod
    def of(found: Sequence[Estimate], draws: int) -> Scores:
        """From the estimates [Q] of each of the groups."""
        value, se, df = (
            np.stack(parts, axis=1)
            for parts in ([one.value for one in found], [one.se for one in found], [one.df for one in found])
        )
        return Scores(value, se, df, np.full(value.shape, draws, dtype=np.int64))

    @property
    def reach(self) -> Array:
        """How far each 95 % interval reaches to either side [Q, G].

        With one seed it is about the score of these very models. With several it is one for what models of
        another seed would say: the spread between seeds counts for that one and for the error of the mean.
        """
        if self.spread is None:
            return Estimate(self.value, self.se, self.df).reach
        between = self.spread**2 * (1.0 + 1.0 / self.seeds)
        variance = between + self.se**2
        with np.errstate(divide="ignore", invalid="ignore"):
            df = variance**2 / (between**2 / (self.seeds - 1) + self.se**4 / self.df)
        return Estimate(self.value, np.sqrt(variance), np.where(np.isfinite(df), df, 1.0)).reach

    @property
    def first_is_first(self) -> Array:
        """How sure the first group of each query is [Q], as far as the Monte-Carlo error goes: a lower bound.

        One less the probabilities (Bonferroni) that one of the others lies higher; the errors are taken as
        independent, though scores share their noise, which makes it sure of less than it could be.
        """
        from scipy.special import stdtr

        order = np.argsort(-self.value, axis=1, kind="stable")
        value, se, df = (np.take_along_axis(part, order, axis=1) for part in (self.value, self.se, self.df))
        gap, error = value[:, :1] - value[:, 1:], np.sqrt(se[:, :1] ** 2 + se[:, 1:] ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(error > 0, gap / error, np.where(gap > 0, np.inf, 0.0))
        wrong = stdtr(np.minimum(df[:, :1], df[:, 1:]), -t).sum(axis=1)
        return np.asarray(np.clip(1.0 - wrong, 0.0, 1.0))


Pending = Callable[[Scores], Mask]
"""Which scores [Q, G] are not sure enough yet."""
More = Callable[[int, Sequence[int], int], Estimate | None]
"""Scores of group j for some queries from so many draws; None where they are not to be had."""


def refine(scores: Scores, pending: Pending, more: More, most: int) -> Scores:
    """`scores`, those that are pending from twice the draws, and again, until none is or `most` is reached.

    A group of which more is not to be had for some queries stays as it is for them.
    """
    value, se, df = (part.copy() for part in (scores.value, scores.se, scores.df))
    draws = scores.draws.copy()
    given_up = np.zeros(value.shape, dtype=np.bool_)
    while True:
        now = replace(scores, value=value, se=se, df=df, draws=draws)
        open_ = pending(now) & (2 * draws <= most) & ~given_up
        if not open_.any():
            return now
        for j in np.flatnonzero(open_.any(axis=0)).tolist():
            for count in np.unique(draws[open_[:, j], j]).tolist():
                rows = np.flatnonzero(open_[:, j] & (draws[:, j] == count))
                found = more(j, rows.tolist(), 2 * count)
                if found is None:
                    given_up[rows, j] = True
                    continue
                value[rows, j], se[rows, j], df[rows, j] = found.value, found.se, found.df
                draws[rows, j] = 2 * count


def in_the_balance(calibration: Calibration, level: float, unlike: Mask) -> Pending:
    """All scores of images of which one lies within its error of where its group stands out.

    All, as each is seen beside the others. None of images that are `unlike`.
    """
    edge, (_, deviation) = calibration.threshold(level), calibration.others

    def pending(scores: Scores) -> Mask:
        with np.errstate(invalid="ignore"):
            near = np.abs(calibration.z(scores.value) - edge) < BALANCE * scores.se / deviation
        return np.broadcast_to((near.any(axis=1) & ~unlike)[:, None], scores.value.shape)

    return pending


def until(text: str, ranked: Callable[[Scores], Scores] = lambda scores: scores) -> Pending:
    """`--until`: a standard error that the first group's score must have, or how sure it must be (`95%`).

    `ranked` gives the values that groups are ranked by. UsageError for anything else.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    wanted = typed_number.finite(number)
    if wanted is None or not (0 < wanted < 100 if percent else wanted > 0):
        raise UsageError(
            f"--until {text!r} is neither a standard error nor a share of certainty",
            why="a number is the error that the first group's score must have; 95% how sure it must be first",
            fix="--until 95%",
        )
    return _sure(wanted / 100.0, ranked) if percent else _exact(wanted, ranked)


def _exact(wanted: float, ranked: Callable[[Scores], Scores]) -> Pending:
    def pending(scores: Scores) -> Mask:
        order = ranked(scores).value
        return np.asarray((order == order.max(axis=1, keepdims=True)) & (scores.se > wanted))

    return pending


def _sure(wanted: float, ranked: Callable[[Scores], Scores]) -> Pending:
    """The first, and all that may lie above it."""

    def pending(found: Scores) -> Mask:
        scores = ranked(found)
        top = scores.value.argmax(axis=1)
        rows = np.arange(len(top))
        error = np.sqrt(scores.se**2 + scores.se[rows, top][:, None] ** 2)
        near = scores.value > scores.value[rows, top][:, None] - 4.0 * error
        return np.asarray(near & (scores.first_is_first < wanted)[:, None])

    return pending
