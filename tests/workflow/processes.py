"""Commands in processes of their own, to be killed, interrupted and run side by side."""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workflow.fixtures import Done

PATIENCE = 120.0
ROOT = Path(__file__).parent.parent.parent


class Process:
    """A command that was started: its `pid`, and its streams once it has ended."""

    def __init__(self, folder: Path, module: str, args: list[str], environment: dict[str, str]) -> None:
        name = f"streams-{time.monotonic_ns()}"
        self.streams = folder / f"{name}.out", folder / f"{name}.err"
        environment = {"GUDA_THREADS": "1", **environment}
        self.pid: int = _ask({"start": [str(folder), *map(str, self.streams), environment, module, args]})

    def wait(self) -> tuple[int, Done]:
        """How it ended (exit code, or minus the signal), and what it wrote."""
        code = _ask({"wait": self.pid})
        return code, Done(*(path.read_text() for path in self.streams))

    def when(self, holds: Callable[[], bool]) -> None:
        """Sleep until `holds`; a command that takes too long is ended."""
        give_up = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > give_up:
                os.kill(self.pid, 9)
                raise AssertionError(self.wait())
            time.sleep(0.002)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launch(world: int, folder: Path, module: str, *args: str, **environment: str) -> list[Process]:
    """A module in `world` processes that are told of each other as a launcher tells them, the chief first."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    return [
        Process(folder, module, list(args), {**environment, **place, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(world)
    ]


def start(folder: Path, *args: str, **environment: str) -> Process:
    return Process(folder, "guda_cli", list(args), environment)


def run(folder: Path, *args: str, **environment: str) -> Done:
    """A command that is left alone and must end well."""
    code, done = start(folder, *args, **environment).wait()
    assert code == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def saved_step(store: Path) -> int:
    """The step of the newest resume state of a store with one unfinished action; 0 when there is none."""
    for path in (store / "states").glob("*.state"):
        try:
            with path.open("rb") as file:
                return int(json.loads(file.readline().rpartition(b" ")[0])["step"])
        except (OSError, ValueError):
            continue  # replaced while it was read
    return 0


def _ask(request: dict[str, Any]) -> int:
    server = _server()
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.workflow.server"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin
    assert server.stdout
    for close in (server.stdout.close, server.wait, server.stdin.close):  # run last to first
        atexit.register(close)
    assert server.stdout.readline() == "ready\n"
    return server
