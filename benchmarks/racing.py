"""Races beside fixed numbers of forwards: how often the oracle's first group is found, and for how much.

    python benchmarks/racing.py --store results-digits/.guda --images results-digits/queries -n 96
    python benchmarks/racing.py --store .guda --images queries --truth guda      without an oracle

Scores the images by the recipe's own grid with 1 and more draws, by races of several certainties and ends,
and by the paper's grid (every tenth timestep, four noises), each with several scoring seeds, and compares the
rankings with retraining's (`--truth logo`: its models have to be in the store) or with the same models'
average over all that was drawn (`--truth guda`). Prints a table: forwards a model and image, top-1 and NDCG@3
with 95 % intervals over images (bootstrap), how many races were decided, and of these how many put another
group first than all draws together. Works on the current recipe; what was scored before costs nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import guda
from guda_cli.attribution import rank_agreement
from guda_cli.diffusion.schedule import Array

UNJUDGED = {"calibration": 0, "most_draws": 0}
PAPER = {"grid": "stride:10", "draws": 4}


@dataclass(frozen=True)
class Run:
    """Scores of every image by one way of drawing with one seed."""

    documents: Sequence[Mapping[str, Any]]
    forwards: float  # a model and image

    def scores(self, groups: Sequence[str]) -> Array:
        """[images, groups]; of a race the first one above all others, as it is listed."""
        rows = []
        for document in self.documents:
            found = {entry["group"]: entry["score"] for entry in document["scores"]}
            if "race" in document:
                found[document["scores"][0]["group"]] = max(found.values()) + 1e-9
            rows.append([found[name] for name in groups])
        return np.array(rows)


def main(args: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default=".guda")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("-n", type=int, default=96, help="images, from the first [96]")
    parser.add_argument("--seeds", default="0,1", help="scoring seeds [0,1]")
    parser.add_argument("--truth", choices=("logo", "guda"), default="logo")
    parser.add_argument("--draws", default="1,2,4", help="fixed draws of the recipe's grid [1,2,4]")
    parser.add_argument(
        "--races", default="95%:32,80%:32,50%:32,95%:8,95%:3,95%:2", help="CERTAINTY:DRAWS,..."
    )
    parser.add_argument("--no-paper", action="store_true", help="leave out the paper's 396 forwards")
    chosen = parser.parse_args(args)
    here = guda.open(store=chosen.store)
    images = sorted(chosen.images.glob("*.png"))[: chosen.n]
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    rows: list[tuple[str, list[Run]]] = []
    for draws in map(int, chosen.draws.split(",")):
        rows.append((f"{draws} draws", [fixed(here, images, seed, draws=draws) for seed in seeds]))
    if not chosen.no_paper:
        rows.append(("the paper's grid", [fixed(here, images, seeds[0], **PAPER)]))
    for text in chosen.races.split(","):
        level, _, most = text.partition(":")
        raced = [race(here, images, seed, level, int(most)) for seed in seeds]
        rows.append((f"race {level}, {4 * int(most)} forwards at most", raced))
    table(here, images, rows, chosen.truth)


def fixed(here: guda.Project, images: Iterable[Path], seed: int, **settings: Any) -> Run:
    """Every group with the same draws."""
    told(f"seed {seed}, {settings}")
    found = here.score(images, seed=seed, **settings, **UNJUDGED).documents
    score = here.recipe.score
    count = 99 if "grid" in settings else score.timesteps
    return Run(found, float(count * settings["draws"]))


def race(here: guda.Project, images: Iterable[Path], seed: int, level: str, most: int) -> Run:
    """Only as far as the first group needs it."""
    told(f"seed {seed}, race {level}, {most} draws")
    found = here.score(images, seed=seed, race=level, draws=most).documents
    models = len(found[0]["scores"]) + 1
    return Run(found, float(np.mean([document["race"]["forwards"] / models for document in found])))


def table(
    here: guda.Project, images: Sequence[Path], rows: Sequence[tuple[str, list[Run]]], truth: str
) -> None:
    """Print a line for each way of drawing."""
    groups = sorted(here.groups)
    own = np.mean([run.scores(groups) for name, runs in rows if "race" not in name for run in runs], axis=0)
    oracle = own
    if truth == "logo":
        oracle = Run(here.score(images, method="logo", **UNJUDGED).documents, 0.0).scores(groups)
    best = own.argmax(axis=1)
    print(f"{here.recipe.name}: {len(images)} images, {len(groups)} groups, {len(rows[0][1])} scoring seeds;")
    print(f"all draws together: {agreement(own, oracle)}\n")
    print("| drawn | forwards | top-1 | NDCG@3 | decided | of these wrong |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in rows:
        scores = np.concatenate([run.scores(groups) for run in runs])
        found = agreement(scores, np.tile(oracle, (len(runs), 1)), len(runs))
        print(
            f"| {name} | {np.mean([run.forwards for run in runs]):.1f} {found}{outcome(runs, groups, best)}"
        )


def agreement(scores: Array, oracle: Array, seeds: int = 1) -> str:
    """Top-1 and NDCG@3 with intervals; rows are images, of one seed after the other."""
    found = rank_agreement.metrics(scores, oracle)
    out = ""
    for name in ("top1", "ndcg@3"):
        values = np.asarray(found[name]).reshape(seeds, -1).mean(axis=0)
        rng = np.random.default_rng(0)
        means = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        out += f"| {values.mean():.3f} ({low:.2f} to {high:.2f}) "
    return out


def outcome(runs: Sequence[Run], groups: Sequence[str], best: Array) -> str:
    """Of races: the share that was decided, and of these that which put another group first."""
    races = [
        (document["race"]["decided"], document["scores"][0]["group"] != groups[int(best[i])])
        for run in runs
        for i, document in enumerate(run.documents)
        if "race" in document
    ]
    if not races:
        return "| | |"
    decided = [wrong for done, wrong in races if done]
    return f"| {len(decided) / len(races):.2f} | {np.mean(decided) if decided else 0:.3f} |"


def told(what: str) -> None:
    print(f"+ {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
