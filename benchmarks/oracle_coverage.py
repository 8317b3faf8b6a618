"""How often an interval of guda holds what a retraining with a new seed says.

    python benchmarks/oracle_coverage.py IMAGES --store .guda --oracle 2,3 --unlearned 0,1,2

Of a store with models retrained without each group (`guda train --each-group --seeds 2,3`) and groups
unlearned with several seeds (`guda unlearn --all --seeds 0,1,2`): the share of the 95 % intervals of `guda
score` that hold the score of each oracle seed, for one unlearning seed (Monte-Carlo error only) and for all
(the spread between seeds too), over all groups, and for the group that the oracle has first; and the slope of
the oracle's scores on guda's, which says how much of a group's weight unlearning leaves in the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import numpy as np


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--store", default=".guda")
    parser.add_argument("--oracle", default="2,3")
    parser.add_argument("--unlearned", default="0,1,2")
    options = parser.parse_args()
    oracle = [_scored(options, "logo", seed)["score"] for seed in options.oracle.split(",")]
    first = np.mean(oracle, axis=0).argmax(axis=1)
    print("| unlearning seeds | covered | the oracle's first group | slope | half width |")
    print("| --- | --- | --- | --- | --- |")
    for seeds in (options.unlearned.split(",")[0], options.unlearned):
        found = _scored(options, "guda", seeds)
        inside = [(found["low"] <= one) & (one <= found["high"]) for one in oracle]
        rows = np.arange(len(first))
        slopes = [np.polyfit(found["score"].ravel(), one.ravel(), 1)[0] for one in oracle]
        print(
            f"| {seeds} | {' '.join(f'{one.mean():.3f}' for one in inside)} "
            f"| {' '.join(f'{one[rows, first].mean():.3f}' for one in inside)} "
            f"| {' '.join(f'{slope:.2f}' for slope in slopes)} "
            f"| {np.median((found['high'] - found['low']) / 2):.3g} |"
        )


def _scored(options: argparse.Namespace, method: str, seeds: str) -> dict[str, np.ndarray]:
    """Scores and ends of the intervals [images, groups], groups by name."""
    command = [sys.executable, "-m", "guda_cli", "score", *options.images, "--store", options.store]
    command += ["--method", method, "--seeds", seeds, "--set", "score.calibration=0", "--json"]
    print("+ guda", *command[3:], file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    out: dict[str, list[list[float]]] = {"score": [], "low": [], "high": []}
    for document in map(json.loads, done.stdout.splitlines()):
        entries: list[dict[str, Any]] = sorted(document["scores"], key=lambda entry: entry["group"])
        for name, values in out.items():
            values.append([entry[name] for entry in entries])
    return {name: np.array(values) for name, values in out.items()}


if __name__ == "__main__":
    main()
