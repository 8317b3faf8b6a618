"""What `guda doctor` says of this machine: cores, threads, whether they help, GPU. Without torch."""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from guda_cli import environment, processors
from guda_cli.commands.findings import Check
from guda_cli.errors import UsageError

THREADS = "GUDA_THREADS"
BLOCK, ROUNDS, TRIALS = (
    1 << 18,
    12,
    5,
)  # bytes hashed a step; steps a thread; measurements, of which the median
GAIN = 1.2  # two threads must be so many times as fast as one
_NVIDIA = Path("/dev/nvidiactl")


def checks() -> Iterator[Check]:
    """Cores, threads and GPU."""
    allowed = processors.allowed()
    yield Check("cores", "ok", _cores_text(allowed))
    try:
        chosen = environment.threads()
    except UsageError as err:
        yield Check("threads", "fail", err.message, err.fix)
        return
    yield threads(chosen, allowed, speedup() if allowed > 1 and chosen != 1 else None)
    yield _gpu()


def threads(chosen: int | None, cores: int, gain: float | None) -> Check:
    """Whether as many threads as torch takes are of use; `gain` is how many times two are as fast as one."""
    used = f"{THREADS}={chosen}" if chosen else f"{THREADS} not set: one a core"
    if gain is None:
        return Check("threads", "ok", used)
    measured = f"two are {gain:.1f} times as fast as one at this moment"
    if gain >= GAIN:
        return Check("threads", "ok", f"{used}; {measured} (with xargs -P take {THREADS}=1)")
    busy = f"{used}; {measured}: the machine is busy (with xargs -P always one thread a process)"
    return Check("threads", "warn", busy, f"export {THREADS}=1")


def speedup() -> float:
    """How many times two threads are as fast as one, in steps that end together as a network's do.

    Hashing stands for the arithmetic; some tens of milliseconds.
    """
    block = bytes(BLOCK)
    found = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        for _ in range(2 * ROUNDS):
            hashlib.sha256(block).digest()
        alone = time.perf_counter() - began
        found.append(alone / _together(block))
    return statistics.median(found)


def _together(block: bytes) -> float:
    """Seconds of the same work by two threads that wait for each other after every step."""
    barrier = threading.Barrier(2)

    def work() -> None:
        for _ in range(ROUNDS):
            hashlib.sha256(block).digest()
            barrier.wait()

    workers = [threading.Thread(target=work) for _ in range(2)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def _cores_text(allowed: int) -> str:
    text = f"{allowed} of {os.cpu_count()}" if allowed != os.cpu_count() else str(allowed)
    limit = processors.quota()
    return text + (f", of which this container may use {limit:g}" if limit and limit < allowed else "")


def _gpu() -> Check:
    from importlib import metadata

    try:
        built = metadata.version("torch").partition("+")[2]
    except metadata.PackageNotFoundError:
        built = ""
    if not _NVIDIA.exists():
        return Check("GPU", "ok", "none of NVIDIA's (guda doctor --full asks torch)")
    if built == "cpu":
        fix = "pip install torch --index-url https://download.pytorch.org/whl/cu126 --force-reinstall"
        return Check("GPU", "warn", "there is one, but this torch is made for the CPU alone", fix)
    return Check("GPU", "ok", "there is one (guda doctor --full asks torch)")
