"""Timing on a CPU or a GPU: warmed up, waited for, medians; and the most memory that was held meanwhile."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[], object]


class Clock:
    """Seconds on `device`: work on a GPU has ended when it has, not when it was asked for."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def wait(self) -> None:
        """Until the device is idle."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    def once(self, work: Work) -> float:
        """Seconds of one run."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def median(self, work: Work, *, seconds: float = 2.0, least: int = 3) -> float:
        """Median of runs for about `seconds`, `least` at least, after two that do not count."""
        until = time.perf_counter() + 2.0 * seconds
        for _ in range(2):  # the second one without compilation, and with memory at hand
            self.once(work)
        times: list[float] = []
        while len(times) < least or (sum(times) < seconds and time.perf_counter() < until):
            times.append(self.once(work))
        return statistics.median(times)

    def paired(self, first: Work, second: Work, *, repeats: int) -> float:
        """Median of first / second, measured in turns after a warm-up: what both share falls out."""
        first(), second()
        return statistics.median(self.once(first) / self.once(second) for _ in range(repeats))

    def peak(self, work: Work) -> float:
        """GB at most allocated on the GPU while `work` runs, or held by the process on a CPU (0: unknown)."""
        if not self.cuda:
            return process_peak(work)
        import torch

        self.wait()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        self.wait()
        return torch.cuda.max_memory_allocated() / 2**30


def process_peak(work: Work) -> float:
    """GB of resident memory at most while `work` runs; 0 where the system does not say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    except OSError:
        return 0.0
    work()
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**20 if found else 0.0


def step_seconds(clock: Clock, run: Callable[[int], object], few: int, many: int, repeats: int = 3) -> float:
    """Seconds of one of a loop's steps: what `run(many)` takes beyond `run(few)`, by the step.

    Whatever is done once a run, beginning, end and compilation, falls out.
    """
    run(few)
    found = [(clock.once(lambda: run(many)) - clock.once(lambda: run(few))) for _ in range(repeats)]
    return max(statistics.median(found), 0.0) / (many - few)
