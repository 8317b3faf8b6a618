"""Two processes on one store, and interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guda_cli.store import Store
from tests.store.inside import live_leases
from tests.workflow import processes
from tests.workflow.fixtures import RECIPE, Cli, draw, here

STEPS = ["--set", "train.steps=40"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recipe and images."""
    draw(tmp_path / "images")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def both(folder: Path, *args: str) -> list[str]:
    """What two processes with the same command, started together, print; both must end well."""
    started = [processes.start(folder, *args) for _ in range(2)]
    printed = []
    for code, done in [process.wait() for process in started]:
        assert code == 0, done.stderr
        assert "Traceback" not in done.stderr
        printed.append(done.stdout)
    return printed


def test_the_same_training_twice_at_once(empty: Path) -> None:
    found = [json.loads(text) for text in both(empty, "train", "tiny.yaml", "--json", *STEPS)]
    assert sorted(document["ran"] for document in found) == [0, 1]
    assert found[0]["models"] == found[1]["models"]
    assert len(list(here().records("train"))) == 1
    assert live_leases(here()) == []
    assert here().verify().clean


def test_the_same_scoring_twice_at_once(project: Path) -> None:
    first, second = both(project, "score", "q", "--seed", "9", "--json")
    assert first == second
    assert here().verify().clean


def test_no_wait_while_another_holds_the_work(cli: Cli, project: Path) -> None:
    change = ["--set", "train.steps=3"]
    [step] = [s for s in cli("status", *change, "--json").document["steps"] if s["what"] == "full model"]
    holder = (
        "import sys; from guda_cli.store import Store\n"
        "with Store.open('.guda').lease(sys.argv[1]):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, step["key"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        done = cli("train", *change, "--no-wait", "--json", code=6)
        assert done.document["exit_code"] == 6
        assert str(other.pid) in done.stderr
        other.stdin.close()
    assert cli("train", *change, "--no-wait", "--json").document["ran"] == 1


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state(cli: Cli, empty: Path, number: int, code: int) -> None:
    command = ["train", "tiny.yaml", "--set", "train.steps=4000"]
    process = processes.start(empty, *command, GUDA_CHECKPOINT_SECONDS="0.05")
    process.when(lambda: processes.saved_step(empty / ".guda") > 0)
    os.kill(process.pid, number)
    ended, done = process.wait()
    assert ended == code, done.stderr
    assert "state saved, run the same command to go on" in done.stderr
    assert "Traceback" not in done.stderr
    plan = cli("status", "--recipe", "tiny.yaml", "--set", "train.steps=4000").stdout
    assert "interrupted at step" in plan
    assert live_leases(here()) == []


@pytest.mark.parametrize("command", ["train", "unlearn"])
def test_an_interrupt_goes_on_at_that_step(
    cli: Cli, empty: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The interrupt comes at a known step here, and not when a state was due."""
    from guda_cli.training import loop

    steps = ["--set", "train.steps=12", "--set", "unlearn.steps=12"]
    args = {"train": ["train", "tiny.yaml"], "unlearn": ["unlearn", "--group", "blue", "--no-null"]}[command]
    if command == "unlearn":
        cli("train", "tiny.yaml", *steps)
    advance = loop._Run.advance

    def stopped(self: loop._Run, loss_at: Any) -> float:
        if self.step == 7:
            raise KeyboardInterrupt
        return advance(self, loss_at)

    monkeypatch.setattr(loop._Run, "advance", stopped)
    done = cli(*args, *(steps if command == "train" else []), code=130)
    assert "state saved" in done.stderr
    monkeypatch.setattr(loop._Run, "advance", advance)
    done = cli(*args, *(steps if command == "train" else []), "--json")
    assert "going on at step 7 of 12" in done.stderr
    whole = ["--store", "second"]
    cli("train", "tiny.yaml", *steps, *whole)
    if command == "unlearn":
        cli(*args, *whole)
    [record] = list(Store.open("second").records(command))
    assert done.document["models"][0]["weights"] == record.outputs["weights"]
