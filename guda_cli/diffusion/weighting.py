"""Weightings over timesteps: the factor v_t on each ELBO term (docs/methods.md). No numpy until one is used.

Terms are stored in nats (w_t times the squared noise error), so every weighting is a multiplier
chosen when scores are read, not when they are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guda_cli import typed_number
from guda_cli.errors import UsageError

if TYPE_CHECKING:
    from guda_cli.diffusion.schedule import Array, Schedule

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Form:
    """One kind of weighting: how it is typed, and its factors."""

    usage: str
    """`kind`, or `kind:NUMBERS`."""
    numbers: Callable[[str], Numbers]
    """From what follows the colon; ValueError for what it cannot be."""
    factors: Callable[[Array, Array, Numbers], Array]
    """v_t, t = 0..T, from the ELBO's weights w_t, the signal-to-noise ratios and the numbers."""

    @property
    def kind(self) -> str:
        """What stands before the colon."""
        return self.usage.partition(":")[0]


def _none(text: str) -> Numbers:
    if text:
        raise ValueError
    return ()


def _as_it_is(w: Array, snr: Array, numbers: Numbers) -> Array:
    import numpy as np

    return np.ones_like(w)


def _unweighted(w: Array, snr: Array, numbers: Numbers) -> Array:
    return 1.0 / w


def _gamma(text: str) -> Numbers:
    gamma = typed_number.finite(text)
    if gamma is None or gamma <= 0:
        raise ValueError
    return (gamma,)


def _min_snr(w: Array, snr: Array, numbers: Numbers) -> Array:
    import numpy as np

    # 1 at zero SNR: min(SNR, G) / SNR with both going to 0; 1 / w is 0 there
    return np.where(snr > 0, np.minimum(snr, numbers[0]) / snr, 1.0) / w


def _ends(text: str) -> Numbers:
    low, high = (typed_number.finite(part) for part in text.split("-"))
    if low is None or high is None or not 1 <= low <= high:
        raise ValueError
    return low, high


def _band(w: Array, snr: Array, numbers: Numbers) -> Array:
    import numpy as np

    (low, high), t = numbers, np.arange(len(w))
    return np.where((t >= low) & (t <= high), 1.0 / w, 0.0)


ELBO = "elbo"
FORMS = (
    Form(ELBO, _none, _as_it_is),
    Form("uniform", _none, _unweighted),
    Form("min-snr:GAMMA", _gamma, _min_snr),  # Hang et al. 2023
    Form("band:LO-HI", _ends, _band),  # unweighted, t in LO..HI
)
HELP = ", ".join(form.usage for form in FORMS[:-1]) + f" or {FORMS[-1].usage}"
"""The forms, for the help of an option."""


@dataclass(frozen=True)
class Weighting:
    """A parsed weighting: `name` as typed, its form and its numbers."""

    name: str
    form: Form
    numbers: Numbers = ()

    @property
    def is_elbo(self) -> bool:
        """Whether sums under it are nats of the variational bound."""
        return self.form.kind == ELBO

    def multiplier(self, schedule: Schedule) -> Array:
        """v_t for t = 0..T (v_0 = 0)."""
        import numpy as np

        w, snr = schedule.elbo_weight, schedule.snr
        with np.errstate(divide="ignore", invalid="ignore"):
            v = np.where(np.arange(schedule.T + 1) > 0, self.form.factors(w, snr, self.numbers), 0.0)
        return np.asarray(v)


def parse(name: str) -> Weighting:
    """The weighting typed as `name`; UsageError with the accepted forms on anything else."""
    kind, _, rest = name.partition(":")
    for form in FORMS:
        if form.kind == kind:
            try:
                return Weighting(name, form, form.numbers(rest))
            except ValueError:
                break
    raise UsageError(f"unknown weighting '{name}'", why=f"it is one of {HELP}", fix="--weighting min-snr:5")
