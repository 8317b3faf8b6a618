"""Weightings over timesteps: the factor v_t on each ELBO term (docs/methods.md).

Terms are stored in nats (w_t times the squared noise error), so every weighting is a multiplier
chosen when scores are read, not when they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.errors import UsageError
from guda_cli.sections import WEIGHTINGS


@dataclass(frozen=True)
class Weighting:
    """A parsed weighting: `name` as typed, its kind and its numbers."""

    name: str
    kind: str
    numbers: tuple[float, ...] = ()

    @property
    def is_elbo(self) -> bool:
        """Whether sums under it are nats of the variational bound."""
        return self.kind == "elbo"

    def multiplier(self, schedule: Schedule) -> Array:
        """v_t for t = 0..T (v_0 = 0)."""
        w, snr = schedule.elbo_weight, schedule.snr
        with np.errstate(divide="ignore", invalid="ignore"):
            v = np.where(np.arange(schedule.T + 1) > 0, self._of(w, snr), 0.0)
        return np.asarray(v)

    def _of(self, w: Array, snr: Array) -> Array:
        if self.kind == "elbo":
            return np.ones_like(w)
        if self.kind == "uniform":
            return 1.0 / w
        if self.kind == "min-snr":
            # 1 at zero SNR: min(SNR, G) / SNR with both going to 0; 1 / w is 0 there
            return np.where(snr > 0, np.minimum(snr, self.numbers[0]) / snr, 1.0) / w
        low, high = self.numbers
        t = np.arange(len(w))
        return np.where((t >= low) & (t <= high), 1.0 / w, 0.0)


def parse(name: str) -> Weighting:
    """`elbo`, `uniform`, `min-snr:G` (Hang et al. 2023) or `band:LO-HI` (unweighted, t in LO..HI).

    Raises UsageError with the accepted forms on anything else.
    """
    kind, _, rest = name.partition(":")
    try:
        if kind in ("elbo", "uniform") and not rest:
            return Weighting(name, kind)
        if kind == "min-snr":
            gamma = float(rest)
            if gamma > 0 and np.isfinite(gamma):
                return Weighting(name, kind, (gamma,))
        if kind == "band":
            low, high = (float(part) for part in rest.split("-"))
            if 1 <= low <= high:
                return Weighting(name, kind, (low, high))
    except ValueError:
        pass
    raise UsageError(
        f"unknown weighting '{name}'", why=f"it is one of {WEIGHTINGS}", fix="--weighting min-snr:5"
    )
