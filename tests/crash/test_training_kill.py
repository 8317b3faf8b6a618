"""SIGKILL in the middle of training, unlearning, scoring and reporting loses nothing.

The same command afterwards ends well, with the digest of a run that was never killed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.store import Store
from tests.store.inside import live_leases
from tests.workflow import processes
from tests.workflow.fixtures import RECIPE, Done, draw, scores, terms

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")

STEPS = 40
LONG = RECIPE.replace("steps: 20", f"steps: {STEPS}").replace("steps: 5, batch", f"steps: {STEPS}, batch")
KILLS = 3  # of each: training, unlearning
TRAIN = ["train", "tiny.yaml", "--json"]
UNLEARN = ["unlearn", "--group", "blue", "--no-null", "--json"]
SCORE = ["score", "images/amber", "--timesteps", "20", "--json"]
REPORT = ["report", "--html", "report.html", "--json"]
BATCHES = {"GUDA_BATCH_SIZE": "16"}


def run(folder: Path, args: list[str]) -> Done:
    return processes.run(folder, *args, **BATCHES)


def kill(folder: Path, args: list[str], when: Callable[[], bool], delay: float) -> None:
    """Start a command that saves each step and SIGKILL it `delay` seconds after `when` first holds."""
    process = processes.start(folder, *args, GUDA_CHECKPOINT_SECONDS="0", **BATCHES)
    process.when(when)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    code, done = process.wait()
    assert code == -signal.SIGKILL, f"it ended before it was killed: {done}"


def project(folder: Path) -> Path:
    draw(folder / "images")
    (folder / "tiny.yaml").write_text(LONG)
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict, dict]:
    """Digests of an uninterrupted train and unlearn, the scores, and the terms."""
    folder = project(tmp_path_factory.mktemp("reference"))
    made = {args[0]: run(folder, args).document["models"][0]["weights"] for args in (TRAIN, UNLEARN)}
    scored = scores(run(folder, SCORE).documents)
    return made, scored, terms(Store.open(folder / ".guda"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project(tmp_path)


def clean(folder: Path) -> None:
    store = Store.open(folder / ".guda", create=False)
    report = store.verify()
    assert report.clean, report
    assert live_leases(store) == []
    assert not any((folder / ".guda" / "states").iterdir())


def interrupted(folder: Path, args: list[str], seed: int) -> Done:
    """Kill `args` at random steps, each later than the one before, then let it end."""
    rng = random.Random(seed)
    store = folder / ".guda"
    for step in sorted(rng.sample(range(1, STEPS - 12), KILLS)):
        kill(folder, args, lambda step=step: processes.saved_step(store) >= step, rng.uniform(0, 0.02))
        assert Store.open(store, create=False).verify().clean
    loaded = [Store.open(store).load_state(path.stem) for path in (store / "states").glob("*.state")]
    [(saved, _)] = filter(None, loaded)
    done = run(folder, args)
    assert f"going on at step {saved} of {STEPS}" in done.stderr
    assert done.document["ran"] == 1
    return done


def test_training_and_unlearning(folder: Path, reference) -> None:
    made = reference[0]
    for seed, args in ((1, TRAIN), (2, UNLEARN)):
        done = interrupted(folder, args, seed)
        assert done.document["models"][0]["weights"] == made[args[0]]
        clean(folder)
    assert run(folder, TRAIN).document["ran"] == 0


def test_scoring_and_reporting(folder: Path, reference) -> None:
    made, scored, cells = reference
    for args in (TRAIN, UNLEARN):
        assert run(folder, args).document["models"][0]["weights"] == made[args[0]]
    documents, tables = folder / ".guda" / "documents", folder / ".guda" / "tables"
    rng = random.Random(3)
    kill(folder, SCORE, lambda: (documents / "compute.json").exists(), rng.uniform(0, 0.05))
    kill(folder, SCORE, lambda: any(tables.glob("*/table.json")), rng.uniform(0, 0.02))
    assert scores(run(folder, SCORE).documents) == scored
    found = terms(Store.open(folder / ".guda"))
    assert found.keys() == cells.keys()
    assert all((found[key] == cells[key]).all() for key in found)
    assert "no model was run" in run(folder, SCORE).stderr
    clean(folder)

    whole, page = run(folder, REPORT).document, folder / "report.html"
    for delay in (0.02, 0.1):
        page.unlink()
        process = processes.start(folder, *REPORT)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not page.exists() or page.read_text().rstrip().endswith("</html>"), "never half a page"
        assert run(folder, REPORT).document["queries"] == whole["queries"]
    clean(folder)
