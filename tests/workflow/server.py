"""Runs guda in processes of its own that need not load the networks' packages first.

Reads one JSON request a line: {"start": [folder, stdout file, stderr file, environment, module, arguments]}
forks, does there what `python -m MODULE ARGUMENTS` does, and prints the pid; {"wait": pid} prints how that
one ended, as exit code or minus the signal.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import sys
import traceback

PRELOAD = (
    "diffusers.models.unets.unet_2d",
    "h5py",
    "safetensors.torch",
    "scipy.stats",
    "guda_cli.app",
    "guda_cli.commands.train",
    "guda_cli.commands.unlearn",
    "guda_cli.commands.score",
    "guda_cli.commands.report",
    "guda_cli.workflow.models.build",
    "guda_cli.workflow.scoring.counterfactual_run",
    "guda_cli.workflow.reporting.answers_report",
)


def child(
    folder: str, stdout: str, stderr: str, environment: dict[str, str], module: str, args: list[str]
) -> None:
    """The whole life of one command."""
    code: object = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored when the tests run in the background
    try:
        for path, stream in ((stdout, 1), (stderr, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv[1:] = args
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except Exception:  # noqa: BLE001 -- told as an interpreter would tell it
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # several processes take leave of each other there
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    for name in PRELOAD:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            child(*request["start"])
        print(pid, flush=True)


if __name__ == "__main__":
    main()
