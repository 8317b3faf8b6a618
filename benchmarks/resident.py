"""Single `guda score` calls of new images, with and without the resident process of `guda view`.

python benchmarks/resident.py STORE [--calls 200]      prints wall and CPU seconds a call, and their ratio

STORE is copied twice. Both copies are asked the same: each image once as text, then, scored by now, as JSON.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

GUDA = [sys.executable, "-m", "guda_cli"]


class Calls(NamedTuple):
    """Seconds of each call, on the wall and of all processors, and what the calls printed."""

    wall: list[float]
    cpu: list[float]
    printed: list[bytes]


def main(args: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--calls", type=int, default=200)
    chosen = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        places = {name: home / name for name in ("without", "with")}
        for place in places.values():
            place.mkdir()
            shutil.copytree(chosen.store, place / ".guda", ignore=shutil.ignore_patterns("resident"))
        count = ["-n", str(chosen.calls), "--out", "new", "--seed", "4711"]
        subprocess.run([*GUDA, "sample", *count], cwd=places["without"], check=True, capture_output=True)
        shutil.copytree(places["without"] / "new", places["with"] / "new")
        images = [f"new/{number:05d}.png" for number in range(chosen.calls)]
        plain = calls(places["without"], images, os.getpid())
        with subprocess.Popen(
            [*GUDA, "view", "--no-open"],
            cwd=places["with"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as view:
            resident = wait_for(view.pid, places["with"] / ".guda" / "resident" / "socket")
            lent = calls(places["with"], images, resident)
            view.send_signal(2)
    show("without", plain)
    show("with", lent)
    ratios = [
        statistics.median(getattr(plain, n)) / statistics.median(getattr(lent, n)) for n in ("wall", "cpu")
    ]
    print(f"ratio of the medians: wall {ratios[0]:.1f}, CPU {ratios[1]:.1f}")
    same = sum(a == b for a, b in zip(plain.printed, lent.printed, strict=True))
    print(f"same bytes: {same} of {len(plain.printed)} outputs")


def wait_for(parent: int, socket: Path) -> int:
    """The process with the models, once it has read them."""
    while not socket.exists():
        time.sleep(0.1)
    pid = int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
    before = -1.0
    while (now := used(pid)) != before:  # it reads the store before anybody asks
        before = now
        time.sleep(5.0)
    return pid


def calls(folder: Path, images: Sequence[str], pid: int) -> Calls:
    """One call an image; CPU seconds are those of the calls, and of process `pid` with its children."""
    found = Calls([], [], [])
    for image in images:
        own, began = cpu(pid), time.monotonic()
        done = subprocess.run([*GUDA, "score", image, "-q"], cwd=folder, capture_output=True, check=True)
        found.wall.append(time.monotonic() - began)
        time.sleep(0.3)  # until what it left to others is done
        found.cpu.append(cpu(pid) - own)
        found.printed.append(done.stdout)
    for image in images:
        done = subprocess.run([*GUDA, "score", image, "--json"], cwd=folder, capture_output=True, check=True)
        found.printed.append(done.stdout + done.stderr)
    return found


def cpu(pid: int) -> float:
    """CPU seconds of the calls that have ended, and of the process `pid` with what it forked."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + (used(pid) if pid != os.getpid() else 0.0)


def used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def show(name: str, found: Calls) -> None:
    parts = []
    for what, values in (("wall", found.wall), ("CPU", found.cpu)):
        low, high = min(values), max(values)
        middle, mean = statistics.median(values), statistics.mean(values)
        parts.append(f"{what} {middle:.2f} s (mean {mean:.2f}, {low:.2f} to {high:.2f})")
    print(f"{name}: {len(found.wall)} calls, " + ", ".join(parts))


if __name__ == "__main__":
    main(sys.argv[1:])
