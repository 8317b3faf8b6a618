"""Training in several processes, as `accelerate launch` or `torchrun` start them.

Process r of W computes entries r, r + W, ... of every batch and gradients are summed, so that all processes
hold the same weights, those of one process up to rounding. Only the first one, the chief, writes and prints:
the others find in the store what it has published. They talk by keys and values, and in the training loop by
collectives. Without a launch every function here does nothing. Importing this imports no torch.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from guda_cli import typed_number
from guda_cli.errors import GudaError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._C._distributed_c10d import Store

T = TypeVar("T")
NEEDED = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
POLL_SECONDS = 0.1
PATIENCE = timedelta(minutes=10)  # with a process that does not answer
BUCKET = 2**24  # gradients summed at a time


class PeerLost(GudaError):  # noqa: N818
    """Another process of the launch has ended or does not answer; the state was saved."""

    exit_code = 130

    def __init__(self, why: str) -> None:
        super().__init__(
            "another process of this launch ended or does not answer",
            why=why,
            fix="its own message says more; the same command goes on where this one was",
        )


@dataclass
class Launch:
    """This process's place: number `rank` of `world`, and `local` on its machine."""

    rank: int
    world: int
    local: int
    hidden: bool = False
    """While the chief does alone what the others wait for."""
    calls: dict[str, int] = field(default_factory=dict)
    """How often all were called together for the work of a key."""

    @cached_property
    def store(self) -> Store:
        """Keys and values that all processes share."""
        from torch.distributed.rendezvous import rendezvous

        with _peers():
            found: Store = next(iter(rendezvous("env://", timeout=PATIENCE)))[0]
        return found

    def said(self, *keys: str) -> bool:
        """Whether all these keys were set."""
        with _peers():
            return bool(self.store.check(list(keys)))

    def say(self, key: str) -> None:
        """Set a key."""
        with _peers():
            self.store.set(key, "1")

    def next_call(self, key: str) -> str:
        """The name under which all meet next for the work of `key`."""
        return f"call/{key}/{self.calls.get(key, 0)}"


_launch: Launch | None = None  # torch's process group is one a process, too


def join() -> Launch | None:
    """Take part in the launch that the environment tells of; None without one.

    UsageError where the environment is incomplete.
    """
    global _launch
    _launch = None
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    try:
        world, rank, *_ = (os.environ[name] for name in NEEDED)
        _launch = Launch(*_numbers(rank, world, os.environ.get("LOCAL_RANK", rank)))
    except (KeyError, ValueError) as err:
        raise UsageError(
            "the environment tells of several processes, but not which one this is",
            why=f"accelerate launch and torchrun set {', '.join(NEEDED)}; wrong or missing: {err}",
            fix="unset WORLD_SIZE",
        ) from None
    return _launch


def _numbers(rank: str, world: str, local_rank: str) -> tuple[int, int, int]:
    """The same as numbers; ValueError where they are none, or more than there are processes."""
    which, processes, here = (typed_number.whole(text.strip()) for text in (rank, world, local_rank))
    if which is None or here is None or not processes or max(which, here) >= processes:
        raise ValueError(f"process {rank!r} ({local_rank!r} on this machine) of {world!r}")
    return which, processes, here


def _active() -> Launch | None:
    return None if _launch is None or _launch.hidden else _launch


def world() -> int:
    """How many processes share the work."""
    launch = _active()
    return launch.world if launch else 1


def rank() -> int:
    """Which of them this is; the chief is 0."""
    launch = _active()
    return launch.rank if launch else 0


def local_rank() -> int | None:
    """Which process of this machine; None without a launch."""
    return _launch.local if _launch else None


# -- who does what ---------------------------------------------------------------------------------


@contextmanager
def leading(key: str, *, shared: bool) -> Iterator[None]:
    """The chief's work of `key`: with all processes (who come by `follow`) if `shared`, else alone.

    PeerLost when one does not come.
    """
    launch = _active()
    if launch is None:
        yield
    elif shared:
        _gather(launch, key)
        yield
    else:
        launch.hidden = True
        try:
            yield
        finally:
            launch.hidden = False


def _gather(launch: Launch, key: str) -> None:
    call, late = launch.next_call(key), time.monotonic() + PATIENCE.total_seconds()
    launch.calls[key] = launch.calls.get(key, 0) + 1
    launch.say(call)
    while not launch.said(*(f"{call}/{r}" for r in range(1, launch.world))):
        if time.monotonic() > late:
            raise PeerLost(f"not all came within {PATIENCE}")
        time.sleep(POLL_SECONDS)  # not in a blocking call, which would hold back Ctrl-C


def follow(key: str, find: Callable[[], T | None], take_part: Callable[[], object] | None) -> T:
    """What `find` finds once the chief has published it, after taking part in the work where it is shared.

    `take_part` is None for what the chief does alone. PeerLost when the chief is gone.
    """
    launch = _active()
    assert launch is not None
    while (found := find()) is None:
        call = launch.next_call(key)
        if launch.said(call) and take_part:
            launch.calls[key] = launch.calls.get(key, 0) + 1
            launch.say(f"{call}/{launch.rank}")
            take_part()
        time.sleep(POLL_SECONDS)
    return found


# -- in the loop -----------------------------------------------------------------------------------


def start(step: int, device: torch.device) -> None:
    """Meet the others at the beginning of a loop. PeerLost when they would begin at another step."""
    launch = _active()
    if launch is None:
        return
    import torch
    from torch import distributed

    with _peers():
        if not distributed.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            store = distributed.PrefixStore("group", launch.store)  # type: ignore[attr-defined]
            distributed.init_process_group(
                backend, store=store, rank=launch.rank, world_size=launch.world, timeout=PATIENCE
            )
            atexit.register(distributed.destroy_process_group)
        ends = torch.tensor([step, -step], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    if int(ends[0]) != -int(ends[1]):
        raise PeerLost(f"it would go on at another step than {step}: the processes see different stores")


def sum_gradients(parameters: Sequence[Tensor], losses: list[Tensor]) -> list[Tensor]:
    """Sum gradients over all processes, in place, and return the scalars whose sum is that of all `losses`.

    A parameter that has no gradient anywhere is left without.
    """
    if _active() is None:
        return losses
    import torch
    from torch import distributed

    with _peers():
        device = parameters[0].device
        used = [p.grad is not None for p in parameters]
        value = 0.0
        for loss in losses:  # `sum` rounds otherwise from Python 3.12 on
            value += float(loss)
        told = torch.tensor([value, *used], dtype=torch.float64, device=device)
        distributed.all_reduce(told)
        _, *counts = told.tolist()
        for part in _buckets([p for p, n in zip(parameters, counts, strict=True) if n]):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in part]
            flat = torch.cat([g.flatten() for g in grads])
            distributed.all_reduce(flat)
            for p, summed in zip(part, torch.split(flat, [p.numel() for p in part]), strict=True):
                p.grad = summed.view_as(p).clone()
    return [told[0]]


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`parameters` in order, in lists of about BUCKET numbers."""
    part: list[Tensor] = []
    for p in parameters:
        part.append(p)
        if sum(q.numel() for q in part) >= BUCKET:
            yield part
            part = []
    if part:
        yield part


@contextmanager
def _peers() -> Iterator[None]:
    """What torch raises when a process is gone, as PeerLost."""
    try:
        yield
    except RuntimeError as err:
        raise PeerLost(str(err).splitlines()[0] if str(err) else type(err).__name__) from err
