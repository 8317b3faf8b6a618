"""Everything a run needs to go on after a kill, as one safetensors blob."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor


@dataclass
class RunState:
    """Model weights, optimiser moments, EMA weights, steps done and the seconds they took."""

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    ema: dict[str, Tensor]
    seconds: float = 0.0
    scaler: Tensor | None = None
    """Of the gradient scaling (`precision.Scaler.state`); None where there is none."""
    parts: int | None = None
    """In how many parts a batch is computed, where memory did not suffice for those asked for."""

    def to_bytes(self) -> bytes:
        """Serialise as safetensors."""
        tensors = {
            f"{kind}/{name}": value
            for kind in ("weights", "moments", "ema")
            for name, value in getattr(self, kind).items()
        }
        tensors["seconds"] = torch.tensor(self.seconds, dtype=torch.float64)
        if self.scaler is not None:
            tensors["scaler"] = self.scaler
        if self.parts is not None:
            tensors["parts"] = torch.tensor(self.parts)
        return bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))

    @staticmethod
    def from_bytes(step: int, data: bytes) -> RunState:
        """The inverse of `to_bytes`."""
        state = RunState(step, {}, {}, {})
        tensors = load(data)
        state.seconds = float(tensors.pop("seconds"))
        state.scaler = tensors.pop("scaler", None)
        parts = tensors.pop("parts", None)
        state.parts = None if parts is None else int(parts)
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            getattr(state, kind)[name] = value
        return state


def pack_optimizer(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Adam's moments and step counts, keyed `<parameter>/<slot>`."""
    out: dict[str, Tensor] = {}
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        for slot, value in optimizer.state[parameter].items():
            out[f"{name}/{slot}"] = value
    return out


def unpack_optimizer(optimizer: torch.optim.Optimizer, names: list[str], moments: dict[str, Tensor]) -> None:
    """Put `pack_optimizer`'s output back."""
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        slots = {key.rpartition("/")[2]: v for key, v in moments.items() if key.rpartition("/")[0] == name}
        if slots:
            optimizer.state[parameter] = {
                slot: value.clone() if slot == "step" else value.clone().to(parameter.device)
                for slot, value in slots.items()
            }
