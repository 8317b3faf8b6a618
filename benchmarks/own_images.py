"""`guda init --yes && guda run` on folders as people have them, and whether the answer means something.

    python benchmarks/own_images.py --emoji emoji-styles.tar --cifar cifar10.tar > own.md

Makes folders of 240 to 5,000 images in 2 to 50 groups out of the two archives (docs/data-formats.md says
where they come from), runs the two commands in each with nothing else given, then scores training images, of
which it is known whose they are. A line of the table as each is done; `--only NAME` chooses, `--work DIR`
keeps what was made and goes on from it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SCORED = 60  # training images, evenly
EMOJI = {  # name: styles and images of each
    "emoji-2": (("fluent-emoji", "noto"), 120),
    "emoji-4": (("fluent-emoji", "noto", "openmoji", "streamline-emojis"), 60),
    "emoji-11": ((), 22),  # all
    "emoji-8": (
        ("emojione", "emojione-v1", "fluent-emoji", "fluent-emoji-flat", "noto", "noto-v1", "openmoji",
         "streamline-emojis"), 125,
    ),
    "uneven": ({"noto": 400, "fluent-emoji": 60, "openmoji": 12}, 0),
}  # fmt: skip
CIFAR = {
    "cifar-10": (100, 1),
    "cifar-10-large": (500, 1),
    "cifar-50": (500, 5),
}  # a class; parts by brightness
COLUMNS = (
    "set", "images", "groups", "pixels", "steps", "init s", "planned s", "run s", "train s", "unlearn all s",
    "retrain all s", "full model", "checks", "own first", "chance", "own named", "other named",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--only", action="append", help="names of sets")
    parser.add_argument("--work", type=Path, default=Path("own-images"))
    options = parser.parse_args()
    chosen = options.only or [*EMOJI, *CIFAR]
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    for name in chosen:
        folder = options.work / name
        if not (folder / "images").exists():
            make(name, folder / "images", options.emoji if name in EMOJI else options.cifar)
        print("| " + " | ".join(map(str, measure(name, folder))) + " |", flush=True)


# -- the folders -----------------------------------------------------------------------------------


def make(name: str, folder: Path, archive: Path) -> None:
    """The images of one set, seeded."""
    rng = random.Random(name)
    with tarfile.open(archive) as tar:
        chosen = list(emoji(tar, name, rng) if name in EMOJI else cifar(tar, name, rng))
        for group, member in chosen:
            file = tar.extractfile(member)
            assert file is not None
            path = folder / group / "-".join(Path(member.name).parts[-2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())


def emoji(tar: tarfile.TarFile, name: str, rng: random.Random) -> Iterator[tuple[str, tarfile.TarInfo]]:
    styles, each = EMOJI[name]
    of = defaultdict(list)
    for member in sorted(tar.getmembers(), key=lambda m: m.name):
        if member.name.endswith(".png"):
            of[member.name.split("/")[0]].append(member)
    for style in styles or sorted(of):
        count = styles[style] if isinstance(styles, dict) else each
        yield from ((style, member) for member in rng.sample(of[style], count))


def cifar(tar: tarfile.TarFile, name: str, rng: random.Random) -> Iterator[tuple[str, tarfile.TarInfo]]:
    each, parts = CIFAR[name]
    of = defaultdict(list)
    for member in sorted(tar.getmembers(), key=lambda m: m.name):
        if member.isfile() and member.name.startswith("train/"):
            of[member.name.split("/")[1]].append(member)
    for kind, members in sorted(of.items()):
        some = rng.sample(members, each)
        if parts > 1:
            some.sort(key=lambda member: brightness(tar, member))
        for i, member in enumerate(some):
            yield (f"{kind}-{i * parts // each}" if parts > 1 else kind), member


def brightness(tar: tarfile.TarFile, member: tarfile.TarInfo) -> float:
    file = tar.extractfile(member)
    assert file is not None
    return float(np.asarray(Image.open(io.BytesIO(file.read())).convert("L")).mean())


# -- the two commands, and what they are worth --------------------------------------------------------


def guda(folder: Path, *arguments: str, stdin: str = "") -> tuple[list[dict], float]:
    """The JSON documents of one command, and its seconds."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "guda_cli", *arguments, "--json"],
        cwd=folder, input=stdin, stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "GUDA_STORE": ".guda"},
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()], time.monotonic() - began


def measure(name: str, folder: Path) -> list[object]:
    [found], init_seconds = guda(folder, "init", "images", "--yes")
    *_, done = guda(folder, "run")[0]
    [report], _ = guda(folder, "report")
    spent = defaultdict(float)
    for row in report["costs"]:
        spent[row["step"]] += row["seconds"] or 0.0
    groups, checks = len(found["groups"]), done["checks"]
    paths = sorted((folder / "images").rglob("*.*"))
    asked = [str(path.resolve()) for path in paths[:: max(1, len(paths) // SCORED)]]
    scored, _ = guda(folder, "score", "-", stdin="\n".join(asked))
    own = [Path(document["image"]).parent.name for document in scored]
    pairs = list(zip(scored, own, strict=True))
    first = np.mean([document["scores"][0]["group"] == mine for document, mine in pairs])
    named = np.mean([mine in (document["answer"] or ()) for document, mine in pairs])
    others = np.mean([bool({*(document["answer"] or ())} - {mine}) for document, mine in pairs])
    sizes = np.array([group["size"] for group in found["groups"]])
    chance = float((sizes / sizes.sum()) @ np.full(groups, 1 / groups))
    train = spent.get("train", 0.0)
    return [
        name, found["images"], groups, found["proposed"]["size"], found["proposed"]["train_steps"],
        round(init_seconds), round(found["seconds"]["whole"]), round(done["seconds"]), round(train),
        round(spent.get("unlearn", 0.0)), round(train * groups), done["training_check"]["verdict"],
        ", ".join(f"{count} {verdict}" for verdict, count in checks.items() if count),
        f"{first:.2f}", f"{chance:.2f}", f"{named:.2f}", f"{others:.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
