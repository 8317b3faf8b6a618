"""How the cost of a race grows with the number of groups: the digits, each cut into parts.

    python benchmarks/many_groups.py --parts 1,4,16 --work many-groups

Cuts the images of each digit into parts of like images (k-means), so 10, 40 and 160 groups; trains a model on
each and unlearns every group by the digits' recipe, with fewer steps. Then draws images, finds each one's
first group by a race and by fixed draws (benchmarks/racing.py, against the same models' average over all
draws), and prints the forwards an image as a table. Goes on where it was interrupted. The 160 groups take
half an hour on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="1,4,16", help="of each digit [1,4,16]")
    parser.add_argument("--work", type=Path, default=Path("many-groups"))
    parser.add_argument("--steps", type=int, default=40, help="of unlearning a group [40]")
    parser.add_argument("-n", type=int, default=32, help="images drawn [32]")
    options = parser.parse_args()
    for parts in map(int, options.parts.split(",")):
        here = options.work.resolve() / str(parts)
        cut(here / "images", parts)
        guda = [sys.executable, "-m", "guda_cli"]
        data = ["--set", "data.source=auto", "--set", "data.path=images", "--set", "data.root=''"]
        run([*guda, "train", "digits", *data, "--set", f"unlearn.steps={options.steps}"], here)
        run([*guda, "unlearn", "--all"], here)
        if not (here / "queries").exists():
            run([*guda, "sample", "-n", str(options.n), "--out", "queries"], here)
        racing = [sys.executable, str(ROOT / "racing.py"), "--store", ".guda", "--images", "queries"]
        racing += ["--truth", "guda", "--seeds", "0", "--no-paper", "-n", str(options.n)]
        run([*racing, "--draws", "1,2,4", "--races", "95%:32,50%:32,95%:3"], here)


def run(command: list[str], folder: Path) -> None:
    print("+", *command[1:], file=sys.stderr, flush=True)
    subprocess.run(command, cwd=folder, check=True)


def cut(folder: Path, parts: int) -> None:
    """The images, a folder for each part of each digit."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    if folder.exists():
        return
    digits = load_digits()
    pixels = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
    for digit in range(10):
        own = np.flatnonzero(digits.target == digit)
        found = KMeans(parts, n_init=4, random_state=0).fit_predict(digits.data[own])
        for i, part in zip(own, found, strict=True):
            place = folder / f"digit-{digit}-{part:02d}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(place / f"{i:04d}.png")


if __name__ == "__main__":
    main()
