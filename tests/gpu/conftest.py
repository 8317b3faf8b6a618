"""Processes that see this machine's GPUs, which all other tests are kept from.

python -m pytest -m gpu                          on a machine with a GPU
GUDA_TEST_DEVICE=cpu python -m pytest -m gpu     the same on the CPU
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def seeing() -> dict[str, str]:
    """The environment with the GPUs that the tests were started with."""
    given = os.environ["GUDA_TEST_GPUS"]
    rest = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return rest if given == "all" else {**rest, "CUDA_VISIBLE_DEVICES": given}


@pytest.fixture(scope="session")
def device() -> str:
    """Where these tests run."""
    asked = os.environ.get("GUDA_TEST_DEVICE")
    if asked:
        return asked
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    done = subprocess.run(command, env=seeing(), capture_output=True, text=True, check=True)
    if done.stdout.strip() != "True":
        pytest.skip("torch sees no GPU here; GUDA_TEST_DEVICE=cpu runs these tests on the CPU")
    return "cuda"


@pytest.fixture
def on_device(device: str) -> Callable[..., Any]:
    """What a part of `measures` says there, in a process of its own, with warnings as errors."""

    def run(what: str) -> Any:
        command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"]
        command += ["-W", "ignore::FutureWarning", "-m", "tests.gpu.measures", device, what]
        done = subprocess.run(
            command, env=seeing(), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def guda_there(device: str, guda: Callable[..., Any]) -> Callable[..., Any]:
    """The real command in `tmp_path`, which sees the GPUs; --device is added where a network runs."""

    def run(*args: str, network: bool = True) -> Any:
        env = {"CUDA_VISIBLE_DEVICES": os.environ["GUDA_TEST_GPUS"]}
        if env["CUDA_VISIBLE_DEVICES"] == "all":
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(16)))
        return guda(*args, *(["--device", device] if network else []), code=0, env=env)

    return run
