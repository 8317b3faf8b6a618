"""Weightings as multipliers of terms that already carry w_t."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.diffusion import weighting
from guda_cli.errors import UsageError
from guda_cli.sections import ScoreSpec
from tests.diffusion.tiny import BETA_SCHEDULES, make_schedule

NAMES = ("elbo", "uniform", "min-snr:5", "min-snr:0.5", "band:1-1", "band:10-20")


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_multiplier_times_weight(kind: str) -> None:
    schedule = make_schedule(kind, 80)
    t = np.arange(1, 81)
    w, snr = schedule.elbo_weight[1:], schedule.snr[1:]

    def v(name: str) -> np.ndarray:
        return weighting.parse(name).multiplier(schedule)[1:]

    assert (v("elbo") == 1).all()
    np.testing.assert_allclose(v("uniform") * w, 1.0, rtol=1e-12)
    for gamma in (0.5, 5.0):
        expected = [min(s, gamma) / s for s in snr]
        np.testing.assert_allclose(v(f"min-snr:{gamma}") * w, expected, rtol=1e-12)
    np.testing.assert_allclose(v("band:10-20") * w, ((t >= 10) & (t <= 20)).astype(float), rtol=1e-12)
    np.testing.assert_allclose(v("band:1-80"), v("uniform"), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_multipliers_are_finite_and_begin_with_zero(name: str, zero_snr: bool) -> None:
    schedule = make_schedule("linear", 40, "v_prediction", zero_snr)
    v = weighting.parse(name).multiplier(schedule)
    assert v.shape == (41,)
    assert v.dtype == np.float64
    assert v[0] == 0.0
    assert np.isfinite(v).all()
    assert (v >= 0).all()
    if zero_snr:
        assert v[-1] == (1.0 if name == "elbo" else 0.0)


def test_only_elbo_is_a_bound() -> None:
    assert [weighting.parse(name).is_elbo for name in NAMES] == [True] + [False] * 5
    assert [weighting.parse(name).name for name in NAMES] == list(NAMES)


def test_the_default_is_a_weighting() -> None:
    assert weighting.parse(ScoreSpec().weighting).numbers == (5.0,)


@pytest.mark.parametrize(
    "name",
    ["", "elb", "elbo:1", "uniform:2", "min-snr", "min-snr:", "min-snr:0", "min-snr:-1", "min-snr:nan",
     "min-snr:inf", "min-snr:five", "band", "band:", "band:5", "band:9-3", "band:0-3", "band:1-2-3",
     "band:a-b", "band:nan-5"],
)  # fmt: skip
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown weighting") as caught:
        weighting.parse(name)
    assert "min-snr" in caught.value.why
