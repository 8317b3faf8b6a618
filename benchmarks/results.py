"""Every method on one bench: writes docs/results/RECIPE.md from the oracle of a shipped recipe.

    python benchmarks/results.py digits
    python benchmarks/results.py fashion-mnist
    python benchmarks/results.py cifar10-small --set data.path=cifar10.tar
    python benchmarks/results.py emoji-styles --set data.path=emoji-styles.tar

    python benchmarks/results.py cifar10-gpu --set data.path=cifar10.tar --minutes 9

Runs guda's commands in a work folder (--work, default results-RECIPE) and goes on where it was interrupted:
what the folder's store has is not computed again. Takes hours on two cores, most of it for the oracle.
With --minutes it stops when they are over, says what is done and what is left, and ends with exit code 75:
the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results_page import markdown

ROOT = Path(__file__).resolve().parent.parent
METHODS = "similarity,nda,trak,d-trak,das,ekfac,unlearn-query,mucs"
_RATES = "unlearn.lr=2e-4,3e-4,5e-4,1e-3,2e-3"
SPACES = {  # tuned beside the rate
    "retrack": ("unlearn.forget_weight=0.3,1.0", "unlearn.t_min=0.0,0.2,0.4"),
    "neggrad": ("unlearn.forget_weight=0.1,0.3",),
    "erasediff": ("unlearn.erase_rate=0.02,0.05",),
    "siss": ("unlearn.superfactor=0.1,0.3",),
}
TRIALS = {"retrack": 9}  # 5 for the others


@dataclass(frozen=True)
class Plan:
    """What differs between recipes."""

    lengths: tuple[str, ...]  # of the settings tuned: at most a seventh of what a training reads
    archive: str = ""  # what data.path is called in the page's command
    operators: str = "retrack,finetune"  # tuned
    compared: str = ""  # operators beside the recipe's that run with the recipe's settings, not tuned
    curve: str = "5,10,20,50,100,160,200"  # numbers of unlearning steps
    queries: int = 256
    weighting: str = "min-snr:5"  # the recipe's
    seeds: str = "2,3"  # of the oracle, as many as make it reliable
    rates: str = _RATES  # tuned


PLANS = {
    "digits": Plan(("unlearn.steps=100", "unlearn.batch_size=32"), compared="neggrad,erasediff,siss"),
    "fashion-mnist": Plan(("unlearn.steps=160", "unlearn.batch_size=32")),
    "cifar10-small": Plan(
        ("unlearn.steps=160", "unlearn.batch_size=32"),
        "cifar10.tar",
        weighting="min-snr:0.03",
        seeds="2,3,4",
    ),
    "cifar10-gpu": Plan(
        ("unlearn.steps=1400", "unlearn.batch_size=128"),
        "cifar10.tar",
        compared="neggrad,erasediff,siss",
        curve="50,100,200,400,700,1400",
        queries=512,
        rates="unlearn.lr=5e-5,1e-4,2e-4,3e-4,5e-4",  # its training's is a third of the other recipes'
    ),
    "emoji-styles": Plan(
        ("unlearn.steps=150", "unlearn.batch_size=32"),
        "emoji-styles.tar",
        operators="",  # tuning would leave styles out of the table
        compared="anchor:style-removed",  # more with --compared, such as anchor:uniform,esd,finetune
        curve="",  # with --curve 20,50,100
        queries=160,
    ),
}
WEIGHTINGS = ("min-snr:5", "min-snr:1", "min-snr:0.1", "min-snr:0.03", "uniform", "elbo")
UNJUDGED = ("--set", "score.calibration=0")  # rankings are compared, no verdicts
PAPER = ("--grid", "stride:10", "--draws", "1")  # the paper's own: it never visits t = T
LISTS = ("operators", "compared", "curve")  # options that are names between commas
GO_ON = 75  # exit code: time was up (EX_TEMPFAIL)
GRACE = 45.0  # seconds that a command has to save its state


class TimeUp(Exception):  # noqa: N818
    """The time given is over, between two commands or within one."""


def until(command: Sequence[str], cwd: Path, end: float = math.inf) -> tuple[int, str]:
    """Exit code and output of `command`.

    At the monotonic time `end` it gets a SIGTERM; TimeUp once it has ended, unless it was done after all.
    """
    left = None if math.isinf(end) else end - time.monotonic()
    if left is not None and left <= 0:
        raise TimeUp
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as child:
        try:
            out = child.communicate(timeout=left)[0]
        except subprocess.TimeoutExpired:
            child.terminate()  # to guda the same as Ctrl-C, which what runs in the background ignores
            try:
                out = child.communicate(timeout=GRACE)[0]
            except subprocess.TimeoutExpired:
                child.kill()  # the store survives it; what was done since the last saved state is lost
                child.wait()
                raise TimeUp from None
            if child.returncode:
                raise TimeUp from None
    return child.returncode, out


def documents(text: str) -> list[dict[str, Any]]:
    """What a command with --json printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def progress(steps: Iterable[dict[str, Any]]) -> str:
    """What is done and left of the steps of plans (`guda.plan/1`), each named once; they count no scores."""
    once = {(step["what"], step["key"]): step for step in steps}.values()
    left = [step for step in once if step["status"] != "cached"]
    seconds = [step["seconds"] for step in left]
    cost = "" if not left or None in seconds else f", about {sum(seconds) / 60:.0f} min"
    done = [f"  done: {step['what']}" for step in once if step["status"] == "cached"]
    lines = [f"  left: {step['what']} ({step['why']})" for step in left]
    return "\n".join([f"data and models: {len(done)} done, {len(left)} left{cost}", *done, *lines])


def without_folder(command: str) -> str:
    """A command as the page shows it: of the archive its name, not where it lies on this machine."""
    return re.sub(r"(data\.path=)\S*/", r"\1", command)


@dataclass
class Bench:
    """The commands of one recipe and what they answered."""

    recipe: str
    work: Path
    sets: list[str]
    queries: int
    seeds: str
    operators: Sequence[str]
    compared: Sequence[str]
    curve: Sequence[str]
    subsets: int = 0
    end: float = math.inf  # monotonic time at which it stops
    commands: list[str] = field(default_factory=list)

    def guda(self, *args: str) -> list[dict[str, Any]]:
        """Run a guda command with --json; its documents. TimeUp at `end`."""
        shown = "guda " + " ".join(shlex.quote(arg) for arg in args)
        self.commands.append(without_folder(shown))
        print(f"+ {shown}", file=sys.stderr, flush=True)
        code, out = until([sys.executable, "-m", "guda_cli", *args, "--json"], self.work, self.end)
        if code:
            raise SystemExit(f"{shown}: exit code {code}")
        return documents(out)

    def left(self) -> str:
        """Where it stopped, and what the store has and lacks of data, models, unlearned models and oracle."""
        guda = (sys.executable, "-m", "guda_cli")
        oracle = ("train", "--each-group", "--seeds", self.seeds, "--dry-run")
        plans = [until([*guda, *args, "--json"], self.work)[1] for args in (("status",), oracle)]
        steps = [step for plan in plans for document in documents(plan) for step in document.get("steps", ())]
        return f"time is up in: {self.commands[-1]}\n{progress(steps)}"

    def run(self) -> dict[str, Any]:
        """All steps; what is reported."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.guda("train", self.recipe, *self.sets)
        self.guda("sample", "-n", str(self.queries), "--out", "queries")
        self.guda("train", "--each-group", "--seeds", self.seeds)
        scored = self.guda("score", "queries", "--method", "logo", *UNJUDGED)
        if self.subsets:
            first = self.seeds.split(",")[0]
            self.guda("train", "--subsets", str(self.subsets), "--seeds", first)
            self.guda("score", "queries", "--method", "subsets", *UNJUDGED)
        groups = sorted(entry["group"] for entry in scored[0]["scores"])
        tuned = {operator: self.tune(operator) for operator in self.operators}
        self.guda("unlearn", "--all")
        self.guda("score", "queries", "--method", f"guda,{METHODS}", *UNJUDGED)
        self.guda("score", "queries", "--method", "logo,guda", *PAPER, *UNJUDGED)
        left_out = {name for found in tuned.values() for name in found["groups"]}
        judged = [name for name in groups if name not in left_out]
        for operator in self.compared:
            self.variant(judged, f"unlearn.operator={operator}")
        for steps in self.curve:
            self.variant(judged, f"unlearn.steps={steps}")
        for operator in self.operators:
            self.variant(judged, *chosen_sets(tuned[operator]))
        own = PLANS[self.recipe].weighting
        weightings = (own, *(name for name in WEIGHTINGS if name != own))
        report = ("report", "--against", "logo", "--weighting", ",".join(weightings), "--grid", "strata")
        paper = ("report", "--against", "logo", "--weighting", "elbo", "--grid", PAPER[1])
        return {
            "paper": self.guda(*paper)[0],
            "agreement": self.guda(*report, "--html", "agreement.html")[0],
            "centred": self.guda(*report, "--center")[0],
            "tuned": tuned,
        }

    def tune(self, operator: str) -> dict[str, Any]:
        """The trials of one operator on the held-out groups."""
        plan = PLANS[self.recipe]
        trials = ("--trials", str(TRIALS.get(operator, 5)), "-n", "192", "--seeds", self.seeds)
        space = [
            part
            for item in (*plan.lengths, plan.rates, *SPACES.get(operator, ()))
            for part in ("--space", item)
        ]
        return self.guda("tune", "--operator", operator, *trials, *space)[0]

    def variant(self, groups: Sequence[str], *sets: str) -> None:
        """Unlearn and score the judged groups with other settings."""
        options = [part for item in sets for part in ("--set", item)]
        options += [part for name in groups for part in ("--group", name)]
        self.guda("unlearn", *options)
        self.guda("score", "queries", "--method", "guda", *options, *UNJUDGED)


def chosen_sets(found: dict[str, Any]) -> list[str]:
    """The chosen trial's settings as `--set` entries."""
    settings = found["trials"][found["chosen"]]["settings"]
    return [f"unlearn.{key}={value}" for key, value in settings.items() if value is not None]


def _names(text: str) -> list[str]:
    """The names between the commas of `text`."""
    return [name for name in text.split(",") if name]


def main() -> None:
    """Run the bench of one recipe and write its page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", choices=PLANS)
    parser.add_argument("--set", action="append", default=[], help="passed to guda train")
    parser.add_argument("--work", type=Path, help="folder of the store and the images")
    parser.add_argument("--queries", type=int, help="images drawn from the full model")
    parser.add_argument("--seeds", help="of the oracle")
    parser.add_argument("--operators", type=_names, help="tuned and compared")
    parser.add_argument("--compared", type=_names, help="operators compared with the recipe's settings")
    parser.add_argument("--curve", type=_names, help="unlearning steps compared")
    parser.add_argument("--subsets", type=int, default=0, help="random halves of the groups trained without")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, with exit code 75")
    parser.add_argument("--out", type=Path, help="default docs/results/RECIPE.md")
    plan = PLANS[parser.parse_known_args()[0].recipe]
    parser.set_defaults(queries=plan.queries, seeds=plan.seeds)
    parser.set_defaults(**{name: _names(getattr(plan, name)) for name in LISTS})
    given = parser.parse_args()
    os.environ["GUDA_STORE"] = ".guda"  # of the work folder, not one of a folder above it
    sets = [part for item in given.set for part in ("--set", item)]
    work = given.work or Path(f"results-{given.recipe}")
    lists = [getattr(given, name) for name in LISTS]
    bench = Bench(given.recipe, work, sets, given.queries, given.seeds, *lists, given.subsets)
    bench.end = time.monotonic() + 60 * given.minutes
    try:
        found = bench.run()
    except TimeUp:
        print(bench.left())
        sys.exit(GO_ON)
    script = f"python benchmarks/results.py {given.recipe}"
    script += f" --set data.path={plan.archive}" if plan.archive else ""
    for name in ("queries", "seeds", "subsets", *LISTS):
        value = getattr(given, name)
        if value != parser.get_default(name):
            script += f" --{name} {','.join(value) or repr('') if isinstance(value, list) else value}"
    out = given.out or ROOT / "docs" / "results" / f"{given.recipe}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(bench.recipe, found, script, bench.commands), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
