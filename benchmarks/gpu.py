"""How near guda comes to the limit of a GPU: one command, nothing fetched, eight minutes on an H100 or H200.

    python benchmarks/gpu.py [--json FILE] [--only scoring,starts]
    python benchmarks/gpu.py --small --device cpu      all of its code at small sizes; no figures of a GPU

Networks have true shapes and random weights, data and pipelines are made on the spot from seeds. Each section
runs in a process of its own for a share of the time; one that fails or takes too long says so in its row. The
column after the figures is the share of the fastest bare row beside it: the same network, batch and, where it
is named, precision.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import gpu_commands
import gpu_networks
from gpu_rows import Out, Row, first_line, number, of_line, ratios, table, to_line

ROOT = Path(__file__).resolve().parents[1]
REST = 0.7  # of their time that later sections keep whatever an earlier one takes
NO_GPU = "SMALL SIZES ON A CPU: these lines try the code and are no figures of a GPU"


class Section(NamedTuple):
    """A part of the table: its title, what measures it, and seconds that it may take on a GPU."""

    title: str
    run: Callable[[Out], None]
    seconds: float


SECTIONS = {
    "scoring": Section("Scoring, network of recipe cifar10, batches of 512", gpu_networks.scoring, 85),
    "answers": Section("Scoring by one call, the same network", gpu_commands.answers, 50),
    "small": Section("Steps of a small network (fashion-mnist's)", gpu_networks.training_small, 30),
    "commands": Section("Whole commands, Stable Diffusion 1.5's shapes, 512 px", gpu_commands.commands, 115),
    "groups": Section("Ten groups at once, network of the digits", gpu_commands.ten_groups, 30),
    "sd15": Section("Scoring, Stable Diffusion 1.5's network, batches of 64", gpu_networks.scoring_sd15, 70),
    "training": Section("Steps of cifar10's network, batches of 256", gpu_networks.training, 70),
    "starts": Section("Starts", gpu_commands.starts, 25),
    "twice": Section("The same digest twice?", gpu_commands.twice, 30),
    "packing": Section("Terms by batch, network of recipe cifar10", gpu_networks.packing, 12),
    "noise": Section("Noise", gpu_networks.noise, 8),
}


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the code")
    parser.add_argument("--only", default="", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--minutes", type=float, default=7.8, help="for all sections (default 7.8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows as JSON, too")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    if given.section:
        return measure(given.section, given.device, given.small, given.until)
    chosen = [name for name in given.only.split(",") if name] or list(SECTIONS)
    if unknown := sorted(set(chosen) - SECTIONS.keys()):
        parser.error(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    facts = machine(given.device)
    if given.device == "cuda" and "card" not in facts:
        parser.error("torch sees no GPU here. To try the code: --small --device cpu")
    if given.device == "cpu":
        if not given.small:
            parser.error("true sizes take hours on a CPU. To try the code: --small --device cpu")
        print(NO_GPU)
    print("; ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    rows = run_all(chosen, given.device, given.small, 60.0 * given.minutes)
    for line in beside_the_network(rows):
        print(line)
    if given.json:
        document = {"machine": facts, "small": given.small, "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any(row.failed for row in rows) else 0


def run_all(chosen: Sequence[str], device: str, small: bool, seconds: float) -> list[Row]:
    """The sections one after the other, each table printed when it is there."""
    until, rows = time.monotonic() + seconds, []
    for place, name in enumerate(chosen):
        later = sum(SECTIONS[other].seconds for other in chosen[place + 1 :])
        start, left = time.monotonic(), until - time.monotonic()
        rows += run_apart(name, device, small, max(left - REST * later, 1.0))
        found = [row for row in ratios(rows) if row.section == name]
        title = SECTIONS[name].title + (", but small" if small else "")
        print(f"\n{title} ({time.monotonic() - start:.0f} s)")
        print("\n".join(table(found)), flush=True)
    print(f"\nall in {seconds - (until - time.monotonic()):.0f} s")
    return ratios(rows)


def run_apart(name: str, device: str, small: bool, seconds: float) -> list[Row]:
    """The rows of a section, in a process of its own that ends with all that it started when time is up."""
    typed = [
        sys.executable, str(Path(__file__).resolve()), "--section", name, "--device", device,
        "--until", str(time.monotonic() + seconds), *(["--small"] if small else []),
    ]  # fmt: skip
    rows: list[Row] = []
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            typed,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            start_new_session=True,
        )
        timer = threading.Timer(seconds, os.killpg, (child.pid, signal.SIGKILL))
        timer.start()
        assert child.stdout is not None
        for line in child.stdout:
            if row := of_line(line):
                rows.append(row)
                shown = "" if row.value is None else f"{number(row.value)} {row.unit}"
                print(f"{name}: {row.what}: {shown}{row.note}", file=sys.stderr, flush=True)
        child.stdout.close()
        code = child.wait()
        late = not timer.is_alive()
        timer.cancel()
        told.seek(0)
        why = told.read().strip().splitlines()
    if late:
        rows.append(Row(name, "the rest", note=f"failed: not done after {seconds:.0f} s"))
    elif code:
        rows.append(Row(name, "the rest", note=f"failed: {(why or [f'exit {code}'])[-1][:160]}"))
    return rows


def environment(folder: str) -> dict[str, str]:
    """That of a section: this checkout's guda, and `folder` for all that it puts aside."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TMPDIR": folder}


def measure(name: str, device: str, small: bool, until: float) -> int:
    """The section itself; rows go to stdout, a line each."""
    from guda_cli.workflow.project.compute import setup

    def tell(row: Row) -> None:
        print(to_line(row), flush=True)

    try:
        setup(device)  # as every command does
        SECTIONS[name].run(Out(name, device, small, until, tell))
    except Exception as err:  # noqa: BLE001 - the other sections go on
        tell(Row(name, "the rest", note=f"failed: {first_line(err)}"))
    return 0


def machine(device: str) -> dict[str, str]:
    """What this runs on."""
    import torch

    from guda_cli import environment as own

    facts = {}
    if device == "cuda" and torch.cuda.is_available():
        facts["card"] = torch.cuda.get_device_name()
        facts["driver"] = said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
        facts["CUDA"], facts["cuDNN"] = str(torch.version.cuda), str(torch.backends.cudnn.version())
    changed = "+" if said(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"]) else ""
    return {
        **facts,
        "torch": torch.__version__,
        "commit": (said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]) or "unknown") + changed,
        "threads": str(own.threads() or torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def said(command: Sequence[str]) -> str:
    """The first line that a command prints; nothing where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def beside_the_network(rows: Sequence[Row]) -> list[str]:
    """Of the commands that score, how much of their time the bare network would take."""
    rates = [row.value for row in rows if row.section == "sd15" and row.bare and row.value]
    lines = []
    for row in rows:
        words = row.what.split()
        if not rates or row.section != "commands" or row.value is None or words[0] != "score":
            continue
        images, timesteps, models = {"one": 1, "four": 4}[words[1]], int(words[3]), int(words[5])
        alone = images * timesteps * models / max(rates)
        lines.append(f"guda {row.what}: {row.value:.1f} s, of which the network alone {alone:.2f} s")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
