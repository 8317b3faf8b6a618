"""The script that makes the pages of results: it stops when its time is up, and says what is left."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from guda_cli.settings import lookup
from tests.scripts import load

ROOT = Path(__file__).parents[1]
WAITS = """
import sys, time
from guda_cli import failures
failures.terminate_like_interrupt()
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("kept")
    """
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("results")


def step(what: str, status: str, seconds: float | None = None) -> dict[str, Any]:
    return {"what": what, "key": what, "status": status, "why": "not made yet", "seconds": seconds}


def test_every_plan_has_a_shipped_recipe(script: ModuleType) -> None:
    assert set(script.PLANS) <= set(lookup.shipped())


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10-small", "cifar10-gpu", "emoji-styles"])
def test_plans_agree_with_their_recipes(script: ModuleType, name: str, tmp_path: Path) -> None:
    recipe, plan = lookup.load(name, cwd=tmp_path)[0], script.PLANS[name]
    own = {f"unlearn.steps={recipe.unlearn.steps}", f"unlearn.batch_size={recipe.unlearn.batch_size}"}
    assert set(plan.lengths) == own
    assert plan.weighting == recipe.score.weighting


def test_a_page_does_not_say_where_the_archive_lay(script: ModuleType) -> None:
    typed = "guda train emoji-styles --set data.path={}emoji-styles.tar"
    assert script.without_folder(typed.format("/somebody/data/")) == typed.format("")
    assert script.without_folder(typed.format("")) == typed.format("")
    assert script.without_folder("guda sample --out a/b") == "guda sample --out a/b"


class TestUntil:
    def run(self, script: ModuleType, code: str, cwd: Path, seconds: float) -> tuple[int, str]:
        found: tuple[int, str] = script.until([sys.executable, "-c", code], cwd, time.monotonic() + seconds)
        return found

    def test_code_and_output(self, script: ModuleType, tmp_path: Path) -> None:
        code = "print('out'); raise SystemExit(4)"
        assert self.run(script, code, tmp_path, 60) == (4, "out\n")
        assert self.run(script, code, tmp_path, math.inf) == (4, "out\n")

    def test_nothing_is_started_after_the_end(self, script: ModuleType, tmp_path: Path) -> None:
        with pytest.raises(script.TimeUp):
            self.run(script, "open('started', 'w')", tmp_path, -1)
        assert not list(tmp_path.iterdir())

    def test_a_command_is_interrupted_and_waited_for(self, script: ModuleType, tmp_path: Path) -> None:
        with pytest.raises(script.TimeUp):
            self.run(script, WAITS + "open('saved', 'w'); sys.exit(130)", tmp_path, 2)
        assert (tmp_path / "saved").exists()

    def test_what_was_done_after_all_counts(self, script: ModuleType, tmp_path: Path) -> None:
        assert self.run(script, WAITS + "sys.exit(0)", tmp_path, 2) == (0, "kept\n")

    def test_a_command_that_does_not_end_is_killed(
        self, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(script, "GRACE", 0.2)
        began = time.monotonic()
        with pytest.raises(script.TimeUp):
            self.run(script, STUBBORN, tmp_path, 2)
        assert time.monotonic() - began < 30


class TestProgress:
    def test_done_and_left(self, script: ModuleType) -> None:
        steps = [step("full model", "cached", 9.0), step("a", "to do", 60.0), step("b", "waits", 60.0)]
        assert script.progress([*steps, steps[0]]).splitlines() == [
            "data and models: 1 done, 2 left, about 2 min",
            "  done: full model",
            "  left: a (not made yet)",
            "  left: b (not made yet)",
        ]

    def test_no_time_where_it_is_not_known(self, script: ModuleType) -> None:
        assert script.progress([step("a", "to do")]).startswith("data and models: 0 done, 1 left\n")

    def test_all_done(self, script: ModuleType) -> None:
        assert script.progress([step("a", "cached", 1.0)]).startswith("data and models: 1 done, 0 left\n")
