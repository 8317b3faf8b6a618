"""Forwards in bfloat16 or float16, and the gradient scaling that float16 needs (Micikevicius et al. 2018)."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser
from guda_cli.errors import RecipeError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SKIPS = 25  # skipped steps in a row after which no smaller scale can help: torch begins at 2^16


def check(precision: str, device: torch.device) -> None:
    """RecipeError where `device` cannot compute in `precision` (no | bf16 | fp16)."""
    if precision == "no":
        return
    kind = device.type
    poor = (
        kind == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False)
    )
    if poor or not torch.amp.is_autocast_available(kind):
        raise RecipeError(
            f"train.mixed_precision: {precision} does not go on this device ({kind})",
            why="this GPU has no bfloat16" if poor else "torch has no automatic casting for it",
            fix="--set train.mixed_precision=fp16" if poor else "--set train.mixed_precision=no",
        )


class MixedDenoiser:
    """A denoiser whose forwards run under autocast; predictions are float32 as ever."""

    def __init__(self, inner: Denoiser, dtype: torch.dtype) -> None:
        self.inner, self.dtype = inner, dtype
        self.schedule, self.device = inner.schedule, inner.device

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`."""
        with torch.autocast(self.device.type, self.dtype):
            return self.inner.predict(x_t, t, cond).float()


def mixed(denoiser: Denoiser, precision: str) -> Denoiser:
    """`denoiser` with forwards in that precision (no | bf16 | fp16); see `check` for errors."""
    check(precision, denoiser.device)
    if precision == "no":
        return denoiser
    # of norms whose weight stays in float32, as autocast means it (FLUX.1's of queries and keys)
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
    return MixedDenoiser(denoiser, DTYPES[precision])


class Scaler:
    """Scales losses so that float16 gradients do not vanish, and skips steps whose gradients overflowed.

    Does nothing where it is not `enabled`.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=enabled)
        self.enabled = enabled
        self.skipped, self.in_row = 0, 0
        """Skipped steps of the run, and those since the last that was not."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the scaled `loss`."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients as they would be without scaling."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
        """Move the weights unless the gradients' `norm` is not finite, and adapt the scale."""
        self._scaler.step(optimizer)
        self._scaler.update()
        missed = self.enabled and not math.isfinite(float(norm))
        self.skipped += missed
        self.in_row = self.in_row + 1 if missed else 0

    def state(self) -> Tensor | None:
        """Float64 [4] for a later process: scale, steps since it grew, `skipped`, `in_row`.

        None where it is not enabled.
        """
        if not self.enabled:
            return None
        found = self._scaler.state_dict()
        values = [found["scale"], found["_growth_tracker"], self.skipped, self.in_row]
        return torch.tensor(values, dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from what `state` returned."""
        scale, tracker, skipped, in_row = state.tolist()
        self._scaler.load_state_dict(
            self._scaler.state_dict() | {"scale": scale, "_growth_tracker": int(tracker)}
        )
        self.skipped, self.in_row = int(skipped), int(in_row)
