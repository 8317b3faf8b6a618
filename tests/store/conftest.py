"""Fixtures of the store's tests: an empty store, ready-made records, and ways to damage a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guda_cli.store import ActionRecord, Store, action_key

Publish = Callable[..., ActionRecord]
Python = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def publish(store: Store) -> Publish:
    """Publish an action with one output; inputs by name."""

    def run(operation: str = "make", data: bytes | None = None, into: Store | None = None, **inputs: str):
        target = into or store
        output = target.put_bytes(operation.encode() if data is None else data)
        key = action_key(operation, 1, {"of": operation}, inputs)
        return target.publish(
            key,
            operation=operation,
            version=1,
            params={"of": operation},
            inputs=inputs,
            outputs={"out": output},
            provenance={"wall_seconds": 0.5},
        )

    return run


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    """Flip the lowest bit of one byte of a file, whatever its mode."""

    def run(path: Path, at: int = -1) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)

    return run


@pytest.fixture
def python() -> Iterator[Python]:
    """Start a child process running a piece of Python; it is killed at the end of the test."""
    children: list[subprocess.Popen[str]] = []

    def run(code: str, *argv: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, argv)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()
