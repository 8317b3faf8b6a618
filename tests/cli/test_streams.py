"""Standard streams that are closed, full, or read by nobody: the command's own exit code, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GUDA = f"{sys.executable} -m guda_cli"
COMMANDS = {
    "--version": 0,
    "recipes show --help": 0,
    "recipes show digits": 0,
    "recipes ls": 0,
    "recipes ls --json": 0,
    "recipes show nothing": 3,
    "recipes show nothing --json": 3,
    "recipes ls --unknown --json": 2,
}


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True, text=True, encoding="utf-8"
    )
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_fails(command: str, tmp_path: Path) -> None:
    full = shell(f"{GUDA} {command} > /dev/full", tmp_path)
    silent = "nothing" in command and "--json" not in command  # it writes to stderr alone
    assert full.returncode == (COMMANDS[command] or 3)
    if COMMANDS[command] == 0:
        assert "error: cannot write to standard output\n  why: No space left on device" in full.stderr
        assert "gc" not in full.stderr  # the store's disk may have room enough
    gone = shell(f"{GUDA} {command} | true", tmp_path)
    assert gone.returncode == (COMMANDS[command] if silent else 141)
    assert "standard output" not in gone.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_streams_that_are_closed(command: str, tmp_path: Path) -> None:
    code = COMMANDS[command]
    assert shell(f"{GUDA} {command} >&-", tmp_path).returncode == code
    assert shell(f"{GUDA} {command} <&- >&- 2>&-", tmp_path).returncode == code
    for errors in ("2>&-", "2> /dev/full"):
        done = shell(f"{GUDA} {command} {errors}", tmp_path)
        assert done.returncode == code
        if "--json" in command:
            assert json.loads(done.stdout)["schema"]
        elif code == 0:
            assert done.stdout


def test_no_file_gets_a_stream_that_was_closed(tmp_path: Path) -> None:
    """What is written to a closed stream must not end in a file that was opened with its number."""
    code = (
        "import os, sys; from guda_cli import start; start._fill(); file = open('file', 'wb'); "
        "os.write(1, b'for a person'); os.write(2, b'likewise'); print('and this'); file.close()"
    )
    shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path)
    assert (tmp_path / "file").read_bytes() == b""


def test_input_that_is_closed(tmp_path: Path) -> None:
    done = shell(f"{GUDA} init <&-", tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
