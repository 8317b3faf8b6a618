"""How often a verdict is wrong: images of no group, by kind and number of draws, and training images.

    python benchmarks/verdicts.py --store .guda
    python benchmarks/verdicts.py --store .guda --draws 2,8,32 --seeds 0,1,2 -n 60 --other clothes=DIR

Prints a table: of each kind the share of images for which any group is named, with the upper end of its 95 %
interval (Clopper & Pearson 1934), the share called unlike the training data, and how often the verdict is the
commonest of several scoring seeds'. Of training images, that were not calibrated on, their own and other
groups. `--other NAME=DIR` adds images of another domain. Works on the current recipe of a store whose groups
are unlearned.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from kinds_of_images import KINDS, save
from scipy.stats import beta

TRAINING, DRAWN = "training", "drawn"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default=".guda")
    parser.add_argument("--work", type=Path, default=Path("verdicts"))
    parser.add_argument("-n", type=int, default=60, help="images of each kind")
    parser.add_argument("--draws", default="2")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--weighting", default="")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--only", default="", help="kinds of images between commas; all")
    options = parser.parse_args()
    owners = _write(options)
    print("| kind | draws | images | named | at most | unlike | own | other | same verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for draws in options.draws.split(","):
        by_seed = [_score(options, draws, seed) for seed in options.seeds.split(",")]
        for kind in sorted({Path(name).parent.name for name in by_seed[0]}, key=_order):
            print(_row(kind, draws, by_seed, owners), flush=True)


def _order(kind: str) -> tuple[bool, str]:
    return kind in (TRAINING, DRAWN), kind


def _write(options: argparse.Namespace) -> dict[str, str]:
    """The images, below the work folder; the group of each training image by its path."""
    import guda
    from guda_cli.data.images import pixels_digest
    from guda_cli.workflow.scoring import calibrating

    project = guda.open(store=options.store)._open()
    data, rng = project.dataset(), np.random.default_rng(0)
    known = calibrating.images(project)
    taken = {query.pixels_digest for query in known.queries} if known else set()
    owners = {}
    only = set(filter(None, options.only.split(",")))
    for kind, make in KINDS.items():
        if not only or kind in only:
            _save(options.work, kind, [make(data.images, rng) for _ in range(options.n)])
    order = [i for i in rng.permutation(len(data)) if pixels_digest(data.images[i]) not in taken]
    chosen = order[: 2 * options.n if not only or TRAINING in only else 0]
    for path, i in zip(_save(options.work, TRAINING, [data.images[i] for i in chosen]), chosen, strict=True):
        owners[path] = "+".join(data.groups[j] for j in np.flatnonzero(data.membership[i]))
    for item in options.other:
        name, _, folder = item.partition("=")
        (options.work / name).mkdir(parents=True, exist_ok=True)
        files = [p for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
        for path in rng.permutation(np.array(files, dtype=object))[: options.n]:
            (options.work / name / path.name).write_bytes(path.read_bytes())
    return owners


def _save(work: Path, kind: str, images: list[Any]) -> list[str]:
    (work / kind).mkdir(parents=True, exist_ok=True)
    paths = [work / kind / f"{i:03d}.png" for i in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        save(pixels).save(path)
    return [str(path) for path in paths]


def _score(options: argparse.Namespace, draws: str, seed: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "guda_cli", "score", str(options.work), "--store", options.store]
    command += ["--draws", draws, "--seed", seed, "--json"]
    command += ["--weighting", options.weighting] if options.weighting else []
    print("+ guda", *command[3:], file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {d["image"]: d for d in map(json.loads, done.stdout.splitlines())}


def _row(kind: str, draws: str, by_seed: list[dict[str, dict[str, Any]]], owners: dict[str, str]) -> str:
    names = [name for name in by_seed[0] if Path(name).parent.name == kind]
    answers = [[tuple(sorted(found[name]["answer"])) for found in by_seed] for name in names]
    first = [own[0] for own in answers]
    named = sum(bool(answer) for answer in first)
    most = 1.0 if named == len(names) else float(beta.ppf(0.975, named + 1, len(names) - named))
    unlike = np.mean([by_seed[0][name]["unlike"] for name in names])
    own = other = ""
    if kind == TRAINING:
        mine = [set(owners[name].split("+")) for name in names]
        own = f"{np.mean([bool(set(a) & m) for a, m in zip(first, mine, strict=True)]):.2f}"
        other = f"{np.mean([bool(set(a) - m) for a, m in zip(first, mine, strict=True)]):.3f}"
    same = [Counter(found).most_common(1)[0][1] / len(found) for found in answers]
    alike = f"{np.mean(same):.3f}" if len(by_seed) > 1 else ""
    return (
        f"| {kind} | {draws} | {len(names)} | {named / len(names):.2f} | {most:.2f} | {unlike:.2f} "
        f"| {own} | {other} | {alike} |"
    )


if __name__ == "__main__":
    main()
