"""Which trial is taken, from how its columns go with the oracle's (no torch, no store)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guda_cli.attribution.oracle_seeds import score_correlation
from guda_cli.diffusion.schedule import Array

RESAMPLES = 1000


@dataclass(frozen=True)
class Verdict:
    """Correlation on the half tuned on and on the other; how far the first is from the best."""

    tuned_on: float
    shown: float
    behind: float  # the best one's correlation less this one's, on the half tuned on
    error: float  # bootstrap standard error of `behind`

    @property
    def near_best(self) -> bool:
        """Within one standard error of the best (Breiman et al. 1984)."""
        return self.behind <= self.error


def halves(queries: int, seed: int) -> tuple[Array, Array]:
    """Seeded row numbers of the half that is tuned on, and of the other."""
    order = np.random.Generator(np.random.PCG64([0x4A1F, seed])).permutation(queries)
    middle = (queries + 1) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def judge(columns: Sequence[Array], oracle: Array, seed: int) -> list[Verdict]:
    """A verdict on each trial's scores [queries, groups] against the oracle's.

    The measure is the correlation of the columns with the oracle's (`score_correlation`): with a few
    held-out groups there is no ranking to compare.
    """
    first, second = halves(len(oracle), seed)
    values = [score_correlation(c[first], oracle[first]) for c in columns]
    best = int(np.argmax(values))
    rng = np.random.Generator(np.random.PCG64([0xB007, seed]))
    draws = [rng.choice(first, len(first)) for _ in range(RESAMPLES)]
    of_best = [score_correlation(columns[best][d], oracle[d]) for d in draws]
    out = []
    for i, scores in enumerate(columns):
        shown = score_correlation(scores[second], oracle[second])
        behind = (
            [top - score_correlation(scores[d], oracle[d]) for top, d in zip(of_best, draws, strict=True)]
            if i != best
            else [0.0]
        )
        out.append(Verdict(values[i], shown, values[best] - values[i], float(np.std(behind))))
    return out


def choose(verdicts: Sequence[Verdict], costs: Sequence[float], strengths: Sequence[float]) -> int:
    """The cheapest trial near the best; of equally cheap ones the gentlest, then the better.

    Between settings that cannot be told apart, the one that changes the model least (the lowest strength)
    is the safer on groups that were not looked at, as in the rule of one standard error.
    """
    near = [i for i, verdict in enumerate(verdicts) if verdict.near_best]
    return min(near, key=lambda i: (costs[i], strengths[i], -verdicts[i].tuned_on))
