"""Which recipe is current, with its --set values, outlives damage; what others leave there is harmless."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.store import Store
from tests.store.inside import live_leases
from tests.workflow.fixtures import Cli, here, record


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 2
    path.write_bytes(data)


HARM: dict[str, Callable[[Path], object]] = {
    "bit": one_bit,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "link": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


def document(copy: str = "") -> Path:
    return here().root / "documents" / f"current{copy}.json"


@pytest.mark.parametrize("copy", ["", ".copy"])
@pytest.mark.parametrize("harm", HARM)
def test_what_was_set_outlives_damage(cli: Cli, project: Path, harm: str, copy: str) -> None:
    cli("train", "--set", "sample.steps=7", "--set", "score.timesteps=9")
    before = cli("status", "--json").stdout
    HARM[harm](document(copy))
    done = cli("status", "--json")
    assert done.stdout == before
    assert ("its copy is used" in done.stderr) == (copy == "")
    assert cli("status", "--json").stderr == ""  # mended
    assert Store.open(".guda").get_document("current")["recipe"]["sample"]["steps"] == 7


def test_a_store_of_an_older_version_gets_a_copy(cli: Cli, project: Path) -> None:
    before = cli("status", "--json").stdout
    document(".copy").unlink()
    cli("status")
    one_bit(document())
    assert cli("status", "--json").stdout == before


@pytest.mark.parametrize("harm", HARM)
def test_where_both_are_damaged_nothing_is_guessed(
    cli: Cli, project: Path, template: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped digits are not trained in the place of somebody's recipe, nor told to be current."""
    typed = ["train", str(template / "tiny.yaml"), "--set", "train.lr=2e-3"]
    monkeypatch.setattr(sys, "argv", ["guda", *typed])  # which the model's record takes down
    cli(*typed)
    for copy in ("", ".copy"):
        HARM[harm](document(copy))
    for command in (["train"], ["status"], ["score", "q"], ["report"], ["run"]):
        done = cli(*command, code=5)
        assert "not known any more which recipe" in done.stderr
        assert f"try: guda {shlex.join(typed)}" in done.stderr
    assert "nothing to do" in cli(*typed).stderr


@pytest.mark.parametrize(
    "name",
    [
        "documents/current (conflicted copy 2026-01-02).json",
        "documents/._current.json",
        "documents/current.sync-conflict-20260102-030405-ABCDEFG.json",
        "documents/current (1).json",
        "actions/._{key}.json",
        "actions/{key} (conflicted copy).json",
        "tables/.DS_Store",
        "blobs/Thumbs.db",
    ],
)
def test_what_synchronising_leaves_stops_no_command(cli: Cli, project: Path, name: str) -> None:
    (here().root / name.format(key=record("train").key)).write_bytes(b"\0\5\x16\7 of another program")
    for command in (["store", "verify"], ["store", "gc", "--force"], ["store", "ls"], ["status"], ["report"]):
        cli(*command)
    assert "no model was run" in cli("score", "q").stderr


@pytest.mark.skipif(os.name != "posix", reason="reads a pipe")
def test_garbage_collection_leaves_what_a_running_command_will_need(
    cli: Cli, project: Path, template: Path
) -> None:
    """A command of another recipe that has only begun, all files old: it goes on without training again."""
    cli("train", "--set", "train.lr=2e-3")
    old = template / "tiny.yaml"
    command = [sys.executable, "-m", "guda_cli", "score", "-", "--recipe", str(old)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        for _ in range(600):
            if any(lease["notes"] for lease in live_leases(here()) if lease["pid"] == child.pid):
                break
            time.sleep(0.1)
        cli("store", "gc", "--force", "--grace", 0)
        stdout, stderr = child.communicate("q/00000.png\n", timeout=120)
    assert child.returncode == 0, stderr
    assert "no model was run" in stderr
    assert stdout
    assert not [lease for lease in live_leases(here()) if lease["pid"] == child.pid]
    freed = cli("store", "gc", "--force", "--grace", 0, "--json").document
    assert freed["records"], "nothing needs them any more"
