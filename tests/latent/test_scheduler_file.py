"""Noise schedules of pipelines: those that are a DDPM's, by any class of diffusers, and others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guda_cli.checkpoints.scheduler_file import SCHEDULERS, checked_scheduler
from guda_cli.diffusion.schedule import from_config
from guda_cli.errors import DataError

LINEAR: dict[str, Any] = {"num_train_timesteps": 40, "beta_schedule": "linear"}


def refused(**entries: Any) -> str:
    with pytest.raises(DataError) as caught:
        checked_scheduler({**LINEAR, **entries}, "model")
    return f"{caught.value.message} | {caught.value.why}"


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # of theirs
@pytest.mark.parametrize("name", SCHEDULERS)
def test_betas_are_those_of_its_own_class(name: str) -> None:
    """Also where the file is silent: not all classes put in the same."""
    import diffusers

    made = getattr(diffusers, name)
    if getattr(made, "_backends", None):
        pytest.skip(f"{name} needs {made._backends}")
    config, _ = checked_scheduler({**LINEAR, "_class_name": name}, "model")
    np.testing.assert_allclose(from_config(config).abar[1:], made(**LINEAR).alphas_cumprod, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("EDMEulerScheduler", "EDM"),
        ("EDMDPMSolverMultistepScheduler", "EDM"),
        ("CosineDPMSolverMultistepScheduler", "EDM"),
        ("FlowMatchEulerDiscreteScheduler", "flow matching"),
        ("CMStochasticIterativeScheduler", "consistency"),
        ("LCMScheduler", "distilled"),
        ("TCDScheduler", "distilled"),
        ("KarrasVeScheduler", "explodes"),
        ("ScoreSdeVeScheduler", "explodes"),
        ("CogVideoXDDIMScheduler", "snr_shift_scale"),
        ("SomethingNewScheduler", "supported are"),
    ],
)
def test_other_processes_by_their_name(name: str, said: str) -> None:
    found = refused(_class_name=name)
    assert name in found
    assert said in found


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "continuous"),
        ({"snr_shift_scale": 3.0}, "snr_shift_scale"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"prediction_type": ["epsilon"]}, "prediction_type"),
        ({"rescale_betas_zero_snr": True}, "pure noise"),
        ({"trained_betas": [0.1, 1.0]}, "pure noise"),
        ({"trained_betas": [0.1, 1.5]}, "between 0 and 1"),
        ({"trained_betas": [0.1, -0.5]}, "between 0 and 1"),
        ({"trained_betas": [0.1, float("nan")]}, "trained_betas"),
        ({"trained_betas": [[0.1], [0.2]]}, "trained_betas"),
        ({"beta_end": 50}, "between 0 and 1"),
        ({"beta_start": "low"}, "beta_start"),
        ({"beta_end": 10**400}, "beta_end"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps"),
        ({"num_train_timesteps": 1.5}, "num_train_timesteps"),
        ({"num_train_timesteps": 1}, "num_train_timesteps"),
        ({"beta_schedule": "exp"}, "exp"),
        ({"beta_schedule": None}, "no betas"),
    ],
)
def test_entries_that_are_no_process(entries: dict[str, Any], said: str) -> None:
    assert said in refused(**entries)


def test_zero_terminal_snr_with_another_prediction() -> None:
    config = {**LINEAR, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    assert checked_scheduler(config, "model")[0] == config


def test_what_the_network_predicts_as_it_was_said_in_2022() -> None:
    config, notes = checked_scheduler({**LINEAR, "predict_epsilon": False}, "model")
    assert config["prediction_type"] == "sample"
    assert "predict_epsilon" in " ".join(notes)
    assert from_config(config).prediction_type == "sample"
    config, notes = checked_scheduler({**LINEAR, "predict_epsilon": True}, "model")
    assert (from_config(config).prediction_type, notes) == ("epsilon", ())
