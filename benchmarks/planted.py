"""A planted truth: which weightings find the one group whose images carry a mark.

    python benchmarks/planted.py

The handwritten digits, of which all images of one group get a bright 2x2 square in a corner. A query is an
image of another group with the square: whatever else it is owed to, only the planted group explains the mark.
Writes docs/results/planted.md: for each weighting, how often each method puts the planted group first.
Minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WEIGHTINGS = ("min-snr:5", "min-snr:1", "min-snr:0.1", "uniform", "elbo")
METHODS = ("guda", "similarity", "das")
QUERIES = 48


def draw(folder: Path, planted: str) -> None:
    """Marked training images by group, and marked queries of the other groups that are not trained on."""
    from guda_cli.data.sources import read_dataset
    from guda_cli.settings.lookup import load

    data = read_dataset(load("digits")[0].data)
    groups = [data.groups[k] for k in data.membership.argmax(axis=1)]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(groups))
    held = [i for i in order.tolist() if groups[i] != planted][:QUERIES]
    for i, group in enumerate(groups):
        pixels = data.images[i, 0].copy()
        if i in held or group == planted:
            pixels[:2, -2:] = 255
        place = (
            folder / "queries" / f"{group}-{i:04d}.png"
            if i in held
            else folder / "images" / group / f"{i:04d}.png"
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)


def guda(folder: Path, *args: str) -> list[dict[str, Any]]:
    """Run a guda command with --json; its documents."""
    print("+ guda", *args, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "guda_cli", *args, "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def first(documents: list[dict[str, Any]], planted: str) -> str:
    """Share of images whose first group is the planted one, and the mean rank of that group."""
    ranks = [next(e["rank"] for e in doc["scores"] if e["group"] == planted) for doc in documents]
    return f"{np.mean(np.array(ranks) == 1):.2f} (mean rank {np.mean(ranks):.1f})"


def main() -> None:
    """Train, unlearn, score under every weighting, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("results-planted"))
    parser.add_argument("--planted", default="digit-3")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "planted.md")
    given = parser.parse_args()
    os.environ["GUDA_STORE"] = ".guda"  # of the work folder, not one of a folder above it
    if not (given.work / "images").exists():
        draw(given.work, given.planted)
    data = ("data.source=folder", "data.path=images")
    guda(given.work, "train", "digits", *(part for item in data for part in ("--set", item)))
    guda(given.work, "unlearn", "--all", "--no-null")
    rows = []
    for method in METHODS:
        cells = []
        for weighting in WEIGHTINGS if method == "guda" else WEIGHTINGS[:1]:
            found = guda(given.work, "score", "queries", "--method", method, "--weighting", weighting)
            cells.append(first(found, given.planted))
        rows.append(f"| {method} | " + " | ".join(cells * (len(WEIGHTINGS) if len(cells) == 1 else 1)) + " |")
    page = [
        "# A planted group",
        "Made by `python benchmarks/planted.py`. The digits, all images of "
        f"{given.planted} with a bright 2x2 square; {QUERIES} images of the other groups with the square, "
        "not trained on. Share of them whose first group is the planted one (0.1 by chance), and the group's "
        "mean rank. Methods without a weighting repeat their value.",
        "\n".join(
            ["| method | " + " | ".join(WEIGHTINGS) + " |", "| --- " * (1 + len(WEIGHTINGS)) + "|", *rows]
        ),
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print(given.out)


if __name__ == "__main__":
    main()
