"""Every cached step as an action: its operation, version and all that decides its result.

No torch here: a plan, `guda status` and `guda report` need keys, not networks. When the numbers of
an operation change, its version must go up (a golden test holds that).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guda_cli.store import ActionRecord, action_key

TRAIN, REGISTER, UNLEARN, PIPELINE = "train", "register", "unlearn", "pipeline"
"""Operations that give a model: trained, taken over, unlearned; a pipeline is where a training starts."""
TERM_SIZES, CALIBRATION, FAMILIAR, DISTANCES = "term-sizes", "calibration", "familiar", "distances"
TRAINING_CHECK = "training-check"
LOOK_ACCURACY = "look-accuracy"
PRECISION = "precision"
MODELS = (TRAIN, UNLEARN)
"""Those whose result is known by what was removed."""
HELD_OUT = "held_out"
"""The output of a data set, and the input of what looks at it, that holds the images kept from training."""
VERSIONS = {
    "dataset": 1,
    "train": 1,
    "register": 1,
    "unlearn": 2,
    TERM_SIZES: 1,
    CALIBRATION: 1,
    FAMILIAR: 1,
    DISTANCES: 1,
    TRAINING_CHECK: 1,
    "elbo-table": 1,
    "score": 1,
    "sample": 1,
    "attribution": 1,
    "instance-scores": 1,
    "import": 1,
    "pipeline": 1,
    "vae": 1,
    "text-encoder": 1,
    "latents": 1,
    "embeddings": 1,
    "small-copies": 1,
    LOOK_ACCURACY: 1,
    PRECISION: 1,
}


@dataclass(frozen=True)
class Action:
    """One step to look up or run. `inputs` are blob digests; `forwards` its forward-equivalents."""

    operation: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    what: str
    forwards: float = 0.0
    steps: int = 0
    command: str = ""
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", VERSIONS[self.operation])

    @property
    def key(self) -> str:
        """The action's key in the store."""
        return action_key(self.operation, self.version, self.params, self.inputs)


@dataclass(frozen=True)
class DataRef:
    """What is known of a dataset without loading it; `blob` is its digest in the store."""

    key: str
    blob: str
    counts: Mapping[str, int]
    images: int
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    """Digests of what stands around the network; empty where it works on the images themselves."""
    held_out: Mapping[str, str] = field(default_factory=dict)
    """`held_out` and the digest of the images that no training sees; empty where there are none."""
    held_out_images: int = 0

    @staticmethod
    def of(record: ActionRecord) -> DataRef:
        """From the record of a `dataset` action."""
        seen = record.provenance
        return DataRef(
            record.key,
            record.outputs["data"],
            seen["groups"],
            seen["images"],
            tuple(seen["shape"]),
            tuple(seen["notes"]),
            held_out={HELD_OUT: record.outputs[HELD_OUT]} if HELD_OUT in record.outputs else {},
            held_out_images=seen.get(HELD_OUT, 0),
        )


def model_blobs(record: ActionRecord) -> dict[str, str]:
    """Weights, configuration and noise schedule of a full model, or of that which was unlearned from.

    By the names of the outputs they were stored as; older models have all of them, too.
    """
    held = record.inputs if record.operation == UNLEARN else record.outputs
    return {name: held[name] for name in ("weights", "config", "betas", "levels") if name in held}


def table_spec(
    operation: str, params: Mapping[str, Any], inputs: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """Key and spec of a table of numbers that grows a row an image, as the store keeps it."""
    version = VERSIONS[operation]
    spec = {"operation": operation, "version": version, "params": dict(params), "inputs": dict(inputs)}
    return action_key(operation, version, params, inputs), spec


def differences(records: Iterable[ActionRecord], action: Action) -> list[str]:
    """In which settings and inputs `action` differs from the last of `records` of the same subject.

    Empty when there is none: then nothing like it was ever made.
    """
    same = [r for r in records if r.params.get("without") == action.params.get("without")]
    if not same:
        return []
    record = same[-1]
    old, new = _flat(record.params), _flat(action.params)
    names = [name for name in sorted(set(old) | set(new)) if old.get(name) != new.get(name)]
    names += [name for name in sorted(action.inputs) if record.inputs.get(name) != action.inputs[name]]
    return names[:6] or ["guda's version"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
