"""A race of groups: which lead an image's scores, told while terms are drawn, so it may stop at any look.

At look k each pair of groups still in it is compared by Student's t of their paired difference, at the level
alpha / (k (k + 1)) shared by the K (G - K) pairs of a leader and another. Over all looks these levels add up
to alpha, so with 1 - alpha no leader is ever put out, whenever the race is stopped. Races are Maron & Moore's
(1994); levels that are spent over looks those of successive elimination (Even-Dar, Mannor & Mansour 2006).
"""

from __future__ import annotations

import numpy as np

from guda_cli.attribution.delta_elbo import degrees
from guda_cli.data.dataset import Mask
from guda_cli.diffusion.schedule import Array


class Race:
    """The contest of `groups` groups for the first `places`, with error `alpha` at most in all."""

    def __init__(self, groups: int, places: int, alpha: float) -> None:
        self.running: Mask = np.ones(groups, dtype=np.bool_)
        """Groups [G] of which more has to be drawn."""
        self.leading: Mask = np.zeros(groups, dtype=np.bool_)
        """Groups [G] that are surely among the first."""
        self.places, self.alpha, self.looks = places, alpha, 0
        self._pairs = max(1, places * (groups - places))
        self._settle()

    @property
    def decided(self) -> bool:
        """Whether the first places are filled."""
        return not self.running.any()

    def look(self, terms: Array) -> None:
        """Settle what can be from the weighted terms [A, draws, n] of the running groups, in order.

        A group's score is the sum over n of the mean over draws; draws are two or more, and all that were
        looked at before are among them.
        """
        self.looks += 1
        level = self.alpha / (self.looks * (self.looks + 1)) / self._pairs
        ahead = _p_values(terms) < level
        np.fill_diagonal(ahead, val=False)
        running = np.flatnonzero(self.running)
        left = self.places - int(self.leading.sum())
        out = ahead.sum(axis=0) >= left
        leads = ahead.sum(axis=1) >= len(running) - left
        self.running[running[out | leads]] = False
        self.leading[running[leads & ~out]] = True
        self._settle()

    def _settle(self) -> None:
        """Close the race once as many are left as there are places, or none is."""
        left = self.places - int(self.leading.sum())
        if left <= 0 or int(self.running.sum()) <= left:
            self.leading |= self.running if left > 0 else False
            self.running[:] = False


def _p_values(terms: Array) -> Array:
    """How likely [A, A] a difference as far as that of the row's group over the column's is by chance."""
    from scipy.special import stdtr

    draws = terms.shape[1]
    scores = terms.mean(axis=1).sum(axis=1)
    out = np.ones((len(terms), len(terms)))
    for i, own in enumerate(terms):
        parts = (own[None] - terms).var(axis=1, ddof=1) / draws
        error = np.sqrt(parts.sum(axis=1))
        gap = scores[i] - scores
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(error > 0, gap / error, np.where(gap == 0, 0.0, np.sign(gap) * np.inf))
        out[i] = stdtr(degrees(parts, np.full(parts.shape[1], draws - 1.0)), -t)
    return out
