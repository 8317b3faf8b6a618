"""A pipeline's noise schedule, from the configuration of any scheduler of diffusers that means a DDPM's.

What a scheduler does in sampling (its order, its spacing, its sigmas) is no part of the model. What counts
are the betas that the network was trained with, and what it predicts. No torch at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guda_cli.checkpoints.config_fields import check_fields
from guda_cli.errors import DataError
from guda_cli.sections import PREDICTION_TYPES

Config = dict[str, Any]

_LATE = (
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
"""Whose betas go, where their file does not say, from 0.00085 to 0.012; all others' as `DDPMScheduler`'s."""
SCHEDULERS = (
    "DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler",
    "DDIMInverseScheduler", "PNDMScheduler", "RePaintScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler",
    *_LATE,
)  # fmt: skip
"""Samplers of networks that were trained on the noise of a DDPM (Ho et al. 2020) at whole timesteps."""
_KNOWN_OTHERS = {
    "EDM": "Karras et al.'s EDM: its network reads a scaled image and a level of noise, not a timestep",
    "FlowMatch": "flow matching: its noise is mixed in evenly, without betas",
    "Cosine": "Karras et al.'s EDM: its network reads a scaled image and a level of noise, not a timestep",
    "SCM": "flow matching on a circle (TrigFlow)",
    "CM": "a consistency model, which goes from noise to an image in one step",
    "LCM": "a model distilled to a few steps, whose likelihood bound means nothing",
    "TCD": "a model distilled to a few steps, whose likelihood bound means nothing",
    "KarrasVe": "a process whose variance explodes, without betas",
    "ScoreSdeVe": "a process whose variance explodes, without betas",
    "ScoreSdeVp": "a process in continuous time",
    "CogVideoX": "a schedule shifted towards noise (snr_shift_scale)",
}
SUPPORTED = (
    "supported are the schedulers of diffusers that share DDPMScheduler's betas, such as DDIM, PNDM and Euler"
)
FIX = "give a model that was trained as a DDPM"


def checked_scheduler(config: Mapping[str, Any], where: str) -> tuple[Config, tuple[str, ...]]:
    """`config` so that `schedule.from_config` reads it as its own class does, and notes on what was put in.

    DataError unless it means a DDPM's noise at whole timesteps, betas in (0, 1) and a known prediction.
    """
    check_scheduler_class(config.get("_class_name", SCHEDULERS[0]), where)
    check_fields(config, where)
    _check_process(config, where)
    config, notes = _with_defaults(config)
    kind = config.get("prediction_type") or "epsilon"
    if kind not in PREDICTION_TYPES:
        raise DataError(f"{where}: prediction_type '{kind}'", why="one of " + ", ".join(PREDICTION_TYPES))
    _check_betas(config, str(kind), where)
    return config, notes


def check_scheduler_class(name: object, where: str) -> None:
    """DataError, which says what it is, for a scheduler of another process."""
    if name in SCHEDULERS:
        return
    known = (why for start, why in _KNOWN_OTHERS.items() if str(name).startswith(start))
    raise DataError(f"{where}: the noise schedule is a {name}", why=next(known, SUPPORTED), fix=FIX)


def _check_process(config: Mapping[str, Any], where: str) -> None:
    name = config.get("_class_name", "scheduler")
    if config.get("use_flow_sigmas"):
        raise DataError(f"{where}: the {name} has use_flow_sigmas", why=_KNOWN_OTHERS["FlowMatch"], fix=FIX)
    if config.get("timestep_type", "discrete") != "discrete":
        raise DataError(
            f"{where}: the {name} has timestep_type = {config['timestep_type']!r}",
            why=_KNOWN_OTHERS["EDM"],
            fix=FIX,
        )
    if config.get("snr_shift_scale", 1) not in (None, 1, 1.0):
        raise DataError(f"{where}: the {name} has snr_shift_scale", why=_KNOWN_OTHERS["CogVideoX"], fix=FIX)
    if config.get("beta_schedule") is None and config.get("trained_betas") is None:
        raise DataError(
            f"{where}: the {name} has no betas",
            why="a noise schedule like DDPMScheduler's is needed, with beta_schedule or trained_betas: "
            "flow-matching models are not supported",
        )


def _with_defaults(config: Mapping[str, Any]) -> tuple[Config, tuple[str, ...]]:
    """What its class puts in where the file is silent, as far as `DDPMScheduler` would put in another."""
    done, notes = dict(config), []
    if config.get("_class_name") in _LATE and config.get("trained_betas") is None:
        for key, value in (("beta_start", 0.00085), ("beta_end", 0.012)):
            if config.get(key) is None:
                done[key] = value
                notes.append(
                    f"the noise schedule has no {key}: {value} is used, as {config['_class_name']} does"
                )
    if config.get("predict_epsilon") is False and config.get("prediction_type") is None:
        done["prediction_type"] = "sample"  # as diffusers wrote it before 0.9
        notes.append(
            "the noise schedule says predict_epsilon: false, so the network predicts the image (sample)"
        )
    return done, tuple(notes)


def _check_betas(config: Mapping[str, Any], kind: str, where: str) -> None:
    """DataError unless diffusers makes betas of `config` that are a process, and `kind` says enough of it."""
    import numpy as np

    from guda_cli.diffusion.schedule import from_config

    try:
        with np.errstate(invalid="ignore"):  # what makes no process is told below
            schedule = from_config(config)
    except (ArithmeticError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as err:
        raise DataError(f"{where}: diffusers cannot build this noise schedule", why=str(err)) from None
    betas = schedule.betas
    if len(betas) < 2 or not ((betas > 0) & (betas <= 1)).all() or (betas[:-1] == 1).any():
        raise DataError(f"{where}: the noise schedule's betas are not all between 0 and 1")
    if betas[-1] == 1 and kind == "epsilon":
        raise DataError(
            f"{where}: the noise schedule ends in pure noise (rescale_betas_zero_snr), and the network "
            "predicts epsilon",
            why="at zero signal-to-noise a noise prediction says nothing about the image",
            fix='set "prediction_type" in scheduler_config.json to what the network was trained to predict',
        )
