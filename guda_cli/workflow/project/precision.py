"""In which precision scores are computed on a device: what was decided, once a full model. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import PRECISION, Action, model_blobs
from guda_cli.workflow.project.compute import AUTO, COMPUTE, Form
from guda_cli.workflow.project.plan import TO_DO, Step
from guda_cli.workflow.project.project import Project

OUTPUT = "precision"
ASKED = "precision"  # the store's document that `auto` was asked for before there were tables in float32
TRIED = {"cuda": ("ieee", "float32", "tf32", "float16", "bfloat16")}
"""Precisions from the most exact on, by the kind of device."""
ELSEWHERE = ("float32", "float16", "bfloat16")
IMAGES = 8  # training images that are scored in every form
TIMES = 2  # under each of two models: once all is loaded for the first time, the second is timed
WORTH = 4.0  # times the forwards of measuring that a run must make, or it is scored in float32
COMPILING = 60.0  # seconds, about, once a machine
SAVED = 0.5  # of the network's time by compiling it, at least
BOUND = 0.1  # of a score's standard error: what a precision may add to it at most
NEAR = 0.95  # of the fastest: as fast as that, the more exact is taken
WORDS = {
    "ieee": "float32 without TF32", "float32": "float32", "tf32": "TF32", "float16": "float16",
    "bfloat16": "bfloat16",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One form on the sample: what it adds in standard errors of a score, and its seconds a forward.

    Neither where it overflows, or where the device has no such form.
    """

    dtype: str
    compiled: str
    error: float | None = None
    seconds: float | None = None

    @property
    def sound(self) -> bool:
        """Whether it adds less than a tenth of the standard error."""
        return self.error is not None and self.error < BOUND


@dataclass(frozen=True)
class Decision:
    """The form that was taken, those it was taken of, and the device."""

    taken: Form
    device: str
    measured: tuple[Measured, ...]

    @property
    def words(self) -> str:
        """In one line."""
        [own] = [one for one in self.measured if (one.dtype, one.compiled) == self.taken]
        first = self.measured[0]
        compiled = ", compiled" if own.compiled else ""
        found = f"{WORDS[own.dtype]}{compiled} on {self.device}"
        if own.seconds and first.seconds and own is not first:
            found += f": adds {own.error:.2g} of a score's standard error"
            found += f", {first.seconds / own.seconds:.1f} times as fast as {WORDS[first.dtype]}"
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "dtype": self.taken.dtype,
            "compiled": self.taken.compiled,
            "device": self.device,
            "measured": [dict(vars(one)) for one in self.measured],
        }

    @staticmethod
    def of(values: dict[str, Any]) -> Decision:
        """The inverse of `to_dict`."""
        taken = Form(values["dtype"], values["compiled"])
        return Decision(taken, values["device"], tuple(Measured(**one) for one in values["measured"]))


def fastest(measured: list[Measured]) -> Measured:
    """The fastest sound form; of those about as fast the most exact. They come from the most exact on."""
    sound = [(one, one.seconds) for one in measured if one.sound and one.seconds is not None]
    best = min(seconds for _, seconds in sound)
    return next(one for one, seconds in sound if best >= NEAR * seconds)


def sample_forwards(project: Project, forms: int) -> float:
    """Forwards of measuring so many forms."""
    spec = project.recipe.score
    return float(2 * TIMES * forms * IMAGES * spec.timesteps * spec.draws)


def scored_before(project: Project, full: ActionRecord, device: str) -> bool:
    """Whether the full model's terms were stored in float32 before `auto` was asked for."""
    if project.store.get_document(ASKED):
        return False
    as_ever = {"device": device, "threads": 0, **Form().key}
    for table in project.store.tables():
        spec = table["spec"] or {}
        own = spec.get("inputs", {}).get("weights") == full.outputs["weights"]
        if own and spec["operation"] == "elbo-table" and spec["params"]["compute"] == as_ever:
            return True
    return False


def steps(project: Project, full: ActionRecord, forwards: float, command: str) -> list[Step]:
    """What a run of so many forwards would measure or compile first, if the store knows on which device."""
    device = (project.store.get_document(COMPUTE) or {}).get("device")
    if device in (None, "cpu") or project.recipe.score.dtype != AUTO:
        return []
    found, tried = known(project, full, device), TRIED.get(device, ELSEWHERE)
    if found is not None:
        own = action(project, full, device, compiled=True)
        why = f"saves more than it takes of {forwards:,.0f} forwards"
        compiled = Step("compiling the network", TO_DO, why, own.key, 0.0, COMPILING, command)
        return [compiled] if compiling_pays(found, forwards) else []
    cost = sample_forwards(project, len(tried))
    if forwards <= WORTH * cost or scored_before(project, full, device):
        return []
    own = action(project, full, device, compiled=False)
    why = f"{len(tried)} precisions on {IMAGES} training images"
    return [Step("measuring how exact forwards must be", TO_DO, why, own.key, cost, command=command)]


def compiling_pays(known: Decision, forwards: float) -> bool:
    """Whether a run of so many forwards saves more by a compiled network than compiling it takes.

    Not where that was measured before.
    """
    [own] = [one for one in known.measured if (one.dtype, one.compiled) == known.taken]
    if own.seconds is None or any(one.compiled for one in known.measured):
        return False
    return forwards * own.seconds * SAVED > COMPILING


def action(project: Project, full: ActionRecord, device: str, *, compiled: bool) -> Action:
    """Measuring the forms on a kind of device, `compiled` ones or the others."""
    inputs = {"dataset": project.data.blob, **project.data.parts, **model_blobs(full)}
    return Action(PRECISION, {"device": device, "compiled": compiled}, inputs, "precision of scoring")


def key(project: Project, full: ActionRecord, decision: Decision) -> str:
    """The key of the record that holds a decision."""
    compiled = any(one.compiled for one in decision.measured)
    return action(project, full, decision.device, compiled=compiled).key


def known(project: Project, full: ActionRecord, device: str) -> Decision | None:
    """What was decided, compiled forms among it where they were measured."""
    for compiled in (True, False):
        record = project.store.lookup(action(project, full, device, compiled=compiled).key)
        if record is not None:
            return Decision.of(json.loads(project.read(record, OUTPUT)))
    return None


def current(project: Project, full: ActionRecord) -> Decision | None:
    """That for the device that the store's tables were last computed on."""
    device = (project.store.get_document(COMPUTE) or {}).get("device")
    return None if device in (None, "cpu") else known(project, full, device)
