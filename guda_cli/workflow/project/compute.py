"""How the numbers are computed on this machine: device, threads, precision."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from guda_cli import environment
from guda_cli.errors import UsageError
from guda_cli.phrases import plural
from guda_cli.sections import Recipe
from guda_cli.training import distributed
from guda_cli.workflow.project.project import Project

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DTYPES = ("ieee", "float32", "tf32", "float16", "bfloat16")
"""Precisions of a forward, from the most exact. `ieee` is float32 without TF32; `float32` is as torch has it,
which on CUDA lets convolutions take TF32; with `tf32` all products do."""
COMPUTE = "compute"  # the store's document on how its tables were last computed


class Form(NamedTuple):
    """How a network that scores computes."""

    dtype: str = "float32"
    """One of DTYPES."""
    compiled: str = ""
    """How it is compiled, if it is (`diffusion.compiled`)."""

    @property
    def key(self) -> dict[str, str]:
        """What enters the key of an ELBO table."""
        return {"dtype": self.dtype, "compiled": self.compiled} if self.compiled else {"dtype": self.dtype}


AS_EVER = Form()


@dataclass(frozen=True)
class Compute:
    """The device and what makes its rounding: results of different ones are never subtracted."""

    device: torch.device
    threads: int
    form: Form = AS_EVER
    """Of the forwards that score."""

    @property
    def key(self) -> dict[str, Any]:
        """What enters the key of an ELBO table."""
        kind = self.device.type
        return {"device": kind, "threads": self.threads if kind == "cpu" else 0, **self.form.key}

    @property
    def batch_size(self) -> int:
        """Rows of one scoring batch; never changes a result by more than rounding."""
        return environment.images_a_batch() or (256 if self.device.type == "cpu" else 512)


def looked_at_in(recipe: Recipe) -> str:
    """The precision in which images are looked at (`strangers`), which takes few forwards."""
    return "float32" if recipe.score.dtype == AUTO else recipe.score.dtype


def setup(device: str = "auto") -> Compute:
    """Prepare torch and choose the device; each process of a launch gets its own GPU.

    UsageError when the device is not there. Must run before the first parallel operation: flushing denormals,
    four times faster on small losses, is a setting of each thread that later threads inherit.
    """
    threads = environment.threads()
    _ = environment.images_a_batch()  # told before any work
    import torch

    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)
    # `use_deterministic_algorithms(True, warn_only=True)` without its import of torch's compiler (1 s)
    torch.set_deterministic_debug_mode("warn")
    # Nobody is to read that: loops are strict, and no bits are promised elsewhere (docs/methods.md).
    warnings.filterwarnings("ignore", r"(?s).*(non-deterministic|deterministic implementation)", UserWarning)
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    chosen = found if device == "auto" else device
    if chosen == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if chosen != "cpu" and chosen != found:
        raise UsageError(
            f"--device {chosen}: torch sees no such device", why=f"it offers {found}", fix=f"--device {found}"
        )
    return Compute(_place(torch.device(chosen)), torch.get_num_threads())


@contextmanager
def with_threads(compute: Compute, count: int) -> Iterator[None]:
    """Compute with `count` threads on the CPU; other devices are left as they are."""
    import torch

    if compute.device.type != "cpu" or count == compute.threads == torch.get_num_threads():
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _place(device: torch.device) -> torch.device:
    """The device of this process of a launch; without one, `device`."""
    import torch

    local = distributed.local_rank()
    if local is None or device.type == "cpu":
        return device
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if local >= count:
        raise UsageError(
            f"process {local + 1} of this launch has no device of its own",
            why=f"torch sees {count} CUDA devices here",
            fix="start as many processes as there are GPUs; or --device cpu",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def remember_compute(project: Project, device: str, form: Callable[[Compute], Form] | None = None) -> Compute:
    """Set up the device, and note in the store how its tables are computed from now on.

    `form` says it of the forwards that score, by the device.
    """
    compute = setup(device)
    if form is not None:
        compute = replace(compute, form=form(compute))
    where, threads = compute.device, plural(compute.threads, "thread", "threads")
    how = compute.form.dtype + (", compiled" if compute.form.compiled else "")
    how += f", {threads}" if where.type == "cpu" else ""
    project.console.detail(f"networks run on {where} in {how}")
    if not project.store.read_only and project.store.get_document(COMPUTE) != compute.key:
        project.store.set_document(COMPUTE, compute.key)
    return compute


def known_compute(
    project: Project, device: str, form: Callable[[str], Form] | None = None
) -> Mapping[str, Any]:
    """How tables were last computed here: enough to read them without importing torch.

    `form` says it of the forwards that score, by the kind of device. Empty where nothing is known.
    """
    known = project.store.get_document(COMPUTE) or {}
    if not known or device not in ("auto", known.get("device")):
        return {}
    own = AS_EVER if form is None else form(known["device"])
    return {"device": known["device"], "threads": known["threads"], **own.key}
