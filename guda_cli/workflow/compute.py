"""How the numbers are computed on this machine: device, threads, precision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guda_cli.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Compute:
    """The device and what makes its rounding: results of different ones are never subtracted."""

    device: torch.device
    threads: int

    @property
    def key(self) -> dict[str, Any]:
        """What enters the key of an ELBO table."""
        kind = self.device.type
        return {"device": kind, "threads": self.threads if kind == "cpu" else 0, "dtype": "float32"}

    @property
    def batch_size(self) -> int:
        """Rows of one scoring batch; never changes a result by more than rounding."""
        return int(os.environ.get("GUDA_BATCH_SIZE") or (256 if self.device.type == "cpu" else 512))


def setup(device: str = "auto") -> Compute:
    """Prepare torch and choose the device. UsageError when the asked one is not there.

    Must run before the first parallel operation: flushing denormals, four times faster on small
    losses, is a setting of each thread that later threads inherit.
    """
    import torch

    torch.set_flush_denormal(True)
    if os.environ.get("GUDA_THREADS"):
        torch.set_num_threads(int(os.environ["GUDA_THREADS"]))
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    chosen = found if device == "auto" else device
    if chosen == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if chosen != "cpu" and chosen != found:
        raise UsageError(
            f"--device {chosen}: torch sees no such device", why=f"it offers {found}", fix=f"--device {found}"
        )
    return Compute(torch.device(chosen), torch.get_num_threads())
