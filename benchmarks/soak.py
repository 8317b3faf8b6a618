"""Everything that goes wrong with stores, at random, for as long as you like: kills, damage, full disks.

python benchmarks/soak.py [--minutes 5] [--seed 1] [--only kill,commands,together,damage,full] [--keep DIR]

Prints a line of counts a campaign, and every fault with the seed of its round; ends with 1 where there was
one. The campaigns share the time; each has a round at least, and the last is finished. What it writes is
removed again, but for rounds with a fault where --keep names a folder.

kill      writers of a store are ended by SIGKILL at random moments; what they had finished must be there
commands  so are train, unlearn, sample and score; what they leave must be an uninterrupted run's
together  several writers and garbage collection at once; what one has looked up must be there to be read
damage    files of a finished store are damaged; verify must notice, and score must say so or answer as before
full      writers and commands on a disk that is too small; nothing may be lost, and with room they go on
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soak_writer as writer

from guda_cli.store import Store

GROUPS = ("amber", "blue", "cyan", "dune")
RECIPE = """\
name: soak
data: {source: folder, path: images, size: 8, channels: 1}
model: {block_out_channels: [8, 16], norm_num_groups: 4}
diffusion: {num_train_timesteps: 50}
train: {steps: 20, batch_size: 16, warmup_steps: 2, ema_decay: 0.9}
unlearn: {steps: 5, batch_size: 16, neighbours: 4}
score: {timesteps: 8, calibration: 0}
sample: {steps: 5}
"""
COMMANDS = (
    ("train", "soak.yaml"),
    ("unlearn", "--all"),
    ("sample", "-n", "4", "--out", "q"),
    ("score", "q", "--json"),
)
CHECKED = ("blobs", "actions", "tables", "documents", "pins", "states")  # folders that verify reads
WRITERS = 5  # at once


@dataclass
class Campaign:
    """What one kind of trouble came to: counts by name, and what went wrong."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def check(self, good: bool, seed: str, what: str) -> None:
        """A fault, unless it is good."""
        if not good:
            self.faults.append(f"{self.name} {seed}: {what}")
            print(f"fault: {self.faults[-1]}", flush=True)


def main(args: Sequence[str]) -> int:
    """Run the campaigns that were asked for; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(CAMPAIGNS))
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args(args)
    names = chosen.only.split(",")
    print(f"seed {chosen.seed}, {chosen.minutes:g} minutes: {', '.join(names)}", flush=True)
    os.environ |= {"GUDA_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ.pop("GUDA_STORE", None)
    done = [Campaign(name) for name in names]
    with tempfile.TemporaryDirectory() as temporary:
        home = (chosen.keep or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        lab = Lab(home) if {"commands", "damage", "full"} & {*names} else None
        ends = time.monotonic() + 60.0 * chosen.minutes
        while time.monotonic() < ends or not all(each.seconds for each in done):
            campaign = min(done, key=lambda each: each.seconds)
            _round(campaign, home, chosen.seed, lab)
    show(done)
    return int(any(campaign.faults for campaign in done))


def _round(campaign: Campaign, home: Path, seed: int, lab: Lab | None) -> None:
    """One round of a campaign; its folder stays where there was a fault."""
    number, began, faults = campaign.counts["rounds"], time.monotonic(), len(campaign.faults)
    place = home / f"{campaign.name}-{number}"
    place.mkdir()
    CAMPAIGNS[campaign.name](campaign, place, f"{seed}:{campaign.name}:{number}", lab)
    if len(campaign.faults) == faults:
        shutil.rmtree(place)
    campaign.counts["rounds"] += 1
    campaign.seconds += time.monotonic() - began


def show(done: Sequence[Campaign]) -> None:
    """A line of counts a campaign."""
    print(f"\n{'campaign':10} {'faults':>6} {'seconds':>8}  counts")
    for campaign in done:
        counts = ", ".join(f"{value:,} {name}" for name, value in sorted(campaign.counts.items()))
        print(f"{campaign.name:10} {len(campaign.faults):6} {campaign.seconds:8.0f}  {counts}")


# -- processes --------------------------------------------------------------------------------------------


def forked(work: Callable[[], int], folder: Path | None = None, output: Path | None = None) -> int:
    """Do some work in a fork of this process, which has all modules loaded; its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if folder is not None:
            os.chdir(folder)
        target = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, 1)
        errors = os.open(
            f"{output}.err" if output else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644
        )
        os.dup2(errors, 2)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(pid: int, after: float) -> int:
    """Its exit code, where it ends by itself before SIGKILL comes."""
    ends = time.monotonic() + after
    while time.monotonic() < ends:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def command(words: Sequence[str], folder: Path, output: Path | None = None) -> int:
    """A whole command in a fork; its pid."""

    def work() -> int:
        from guda_cli import app

        return app.run(list(words))

    return forked(work, folder, output)


# -- a project that is trained in seconds --------------------------------------------------------------------


class Lab:
    """A tiny project: its images and recipe, the store that uninterrupted commands leave, what they print."""

    def __init__(self, home: Path) -> None:
        import diffusers  # noqa: F401 - before anything is forked
        import h5py  # noqa: F401
        import numpy as np
        import torch
        from PIL import Image

        torch.set_num_threads(1)
        self.home = home
        rng = np.random.default_rng(0)
        for number, name in enumerate(GROUPS):
            (home / "images" / name).mkdir(parents=True, exist_ok=True)
            row, column = divmod(number, 2)
            for i in range(12):
                pixels = rng.integers(0, 60, (8, 8)).astype(np.uint8)
                pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += np.uint8(120)
                Image.fromarray(pixels).save(home / "images" / name / f"{i:02d}.png")
        (home / "soak.yaml").write_text(RECIPE.replace("path: images", f"path: {home / 'images'}"))
        self.finished = home / "finished"
        self.finished.mkdir()
        self.seconds = []
        for words in COMMANDS:
            began = time.monotonic()
            code = ended(command(self.words(words), self.finished, home / "printed"))
            assert code == 0, (words, (home / "printed.err").read_text())
            self.seconds.append(time.monotonic() - began)
        self.printed = (home / "printed").read_bytes()
        self.models = models(self.finished / ".guda")

    def words(self, words: Sequence[str]) -> list[str]:
        """A command's words, with the recipe where it lies."""
        return [str(self.home / word) if word == "soak.yaml" else word for word in words]


def models(root: Path) -> dict[str, dict[str, str]]:
    """What every trained and unlearned model consists of, by its key."""
    store = Store.open(root, create=False)
    return {record.key: record.outputs for name in ("train", "unlearn") for record in store.records(name)}


# -- campaigns --------------------------------------------------------------------------------------------


def kill(campaign: Campaign, place: Path, seed: str, lab: Lab | None) -> None:
    """Writers of one store, killed one after the other; everything they finished is looked at each time."""
    rng, journal = random.Random(seed), place / "journal"
    for turn in range(12):
        pid = forked(lambda turn=turn: writer.work(place / "store", f"{seed}:{turn}", journal, collect=False))
        code = killed(pid, rng.uniform(0.0, 0.4))
        campaign.counts["kills"] += code == -signal.SIGKILL
        campaign.check(code in (0, -signal.SIGKILL), seed, f"a writer ended with {code}")
        look_at(campaign, place / "store", journal, seed)
    campaign.counts["finished"] += len(writer.finished(journal))


def look_at(campaign: Campaign, root: Path, journal: Path, seed: str) -> None:
    """The store is sound, and what the journal says is finished is there."""
    for line in writer.complaints(journal):
        campaign.check(False, seed, line)
    if not (root / "format.json").exists():
        return
    store = Store.open(root)
    report = store.verify()
    campaign.check(report.clean, seed, f"not sound: {report}")
    lost = [name for name in writer.finished(journal) if not writer.there(store, name)]
    campaign.check(not lost, seed, f"lost: {lost[:8]}")


def commands(campaign: Campaign, place: Path, seed: str, lab: Lab | None) -> None:
    """The commands one after the other, each killed up to six times before it may end."""
    assert lab is not None
    rng = random.Random(seed)
    for words, seconds in zip(COMMANDS, lab.seconds, strict=True):
        for _ in range(rng.randint(1, 6)):
            code = killed(command(lab.words(words), place), rng.uniform(0.0, 1.2 * seconds))
            campaign.counts["kills"] += code == -signal.SIGKILL
            campaign.check(code in (0, -signal.SIGKILL), seed, f"{words[0]} ended with {code}")
        code = ended(command(lab.words(words), place, place / "printed"))
        campaign.check(code == 0, seed, f"{words[0]} ended with {code}: {told(place)}")
        campaign.counts["commands"] += 1
    as_uninterrupted(campaign, place, seed, lab)


def as_uninterrupted(campaign: Campaign, place: Path, seed: str, lab: Lab) -> None:
    """Models and scores are byte by byte those of the uninterrupted run."""
    campaign.check(models(place / ".guda") == lab.models, seed, "other models than uninterrupted")
    campaign.check((place / "printed").read_bytes() == lab.printed, seed, "other scores than uninterrupted")
    campaign.check(Store.open(place / ".guda").verify().clean, seed, "the store is not sound")
    campaign.counts["models compared"] += len(lab.models)


def answers(printed: bytes) -> list[object]:
    """What `guda score --json` printed, but for its warnings; lines that are no JSON as they are."""
    out: list[object] = []
    for line in printed.splitlines():
        try:
            out.append({**json.loads(line), "warnings": None})
        except (ValueError, TypeError):
            out.append(line)
    return out


def told(place: Path) -> str:
    """The end of what a command said."""
    return (place / "printed.err").read_text()[-300:]


def together(campaign: Campaign, place: Path, seed: str, lab: Lab | None) -> None:
    """Writers on one store for three seconds, one of them killed now and then, while garbage is collected."""
    rng, root, journal = random.Random(seed), place / "store", place / "journal"
    Store.open(root)
    until = time.monotonic() + 3.0
    pids = [
        forked(lambda n=n: writer.work(root, f"{seed}:{n}", journal, collect=True, until=until))
        for n in range(WRITERS)
    ]
    collector = forked(lambda: writer.collect(root, journal, until))
    victim = rng.randrange(WRITERS)
    codes = [killed(pids[victim], rng.uniform(0.1, 2.5))]
    codes += [ended(pid) for n, pid in enumerate(pids) if n != victim]
    campaign.check(
        set(codes[1:]) | {codes[0], 0} <= {0, -signal.SIGKILL}, seed, f"writers ended with {codes}"
    )
    campaign.check(ended(collector) == 0, seed, "garbage collection failed")
    for line in writer.complaints(journal):
        campaign.check(False, seed, line)
    report = Store.open(root).verify()
    campaign.check(report.clean, seed, f"not sound: {report}")
    campaign.counts["finished"] += len(writer.finished(journal))
    campaign.counts["collections"] += writer.collections(journal)


def damage(campaign: Campaign, place: Path, seed: str, lab: Lab | None) -> None:
    """One file of the finished project is damaged; once verify looks at it, once score."""
    assert lab is not None
    rng = random.Random(seed)
    shutil.copytree(lab.finished, place, dirs_exist_ok=True)
    root = place / ".guda"
    files = sorted(
        path for path in root.rglob("*") if path.is_file() and path.parts[-2] not in ("leases", "tmp")
    )
    victim = rng.choice(files)
    how = writer.damaged(victim, rng)
    what = f"{how} of {victim.relative_to(root)}"
    campaign.counts["damages"] += 1
    if victim.relative_to(root).parts[0] in CHECKED and how != "removal" and rng.random() < 0.5:
        noticed = ended(command(["store", "verify"], place, place / "printed"))
        campaign.counts["verified"] += 1
        campaign.check(noticed == 5, seed, f"verify ended with {noticed} after {what}: {told(place)}")
    code = ended(command(["score", "q", "--json"], place, place / "printed"))
    same = answers((place / "printed").read_bytes()) == answers(lab.printed)
    campaign.counts["same answers" if same and code == 0 else "said"] += 1
    campaign.check(code in (0, 3, 4, 5), seed, f"score ended with {code} after {what}: {told(place)}")
    campaign.check(same or code != 0, seed, f"other scores without a word after {what}")


def full(campaign: Campaign, place: Path, seed: str, lab: Lab | None) -> None:
    """A disk that fills up while writers, or the commands, are at work; then there is room again."""
    assert lab is not None
    rng = random.Random(seed)
    with small_disk(place, rng) as (disk, enlarge):
        journal = place / "journal"
        for turn in range(4):
            limit = rng.randrange(1_000, 60_000)
            if disk != place and rng.random() < 0.5:
                limit = None
            code = ended(
                forked(lambda turn=turn, limit=limit: fill(disk / "store", f"{seed}:{turn}", journal, limit))
            )
            campaign.check(code in (0, writer.FULL), seed, f"a writer ended with {code}")
            campaign.counts["full disks met"] += code == writer.FULL
            look_at(campaign, disk / "store", journal, seed)
        shutil.rmtree(disk / "store", ignore_errors=True)
        project = disk / "project"
        project.mkdir()
        limit = None if disk != place else rng.randrange(2_000, 40_000)
        for words in COMMANDS[:2]:
            code = ended(forked(lambda words=words: limited(limit, lambda: run(lab.words(words))), project))
            campaign.counts["full disks met"] += code == 3
            campaign.check(code in (0, 3, 4), seed, f"{words[0]} ended with {code}")
        enlarge()
        for words in COMMANDS:
            code = ended(command(lab.words(words), project, project / "printed"))
            campaign.check(code == 0, seed, f"{words[0]} ended with {code}: {told(project)}")
        as_uninterrupted(campaign, project, seed, lab)


def fill(root: Path, seed: str, journal: Path, limit: int | None) -> int:
    """A writer for half a second, perhaps with no more than `limit` bytes a file."""
    until = time.monotonic() + 0.5
    return limited(limit, lambda: writer.work(root, seed, journal, collect=False, until=until))


def run(words: Sequence[str]) -> int:
    """A command in this process."""
    from guda_cli import app

    return app.run(list(words))


def limited(limit: int | None, work: Callable[[], int]) -> int:
    """Do some work while no file may grow beyond `limit` bytes, which writers take for a full disk."""
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return work()


@contextlib.contextmanager
def small_disk(place: Path, rng: random.Random) -> Iterator[tuple[Path, Callable[[], object]]]:
    """A disk of its own in memory, where it may be mounted, else the folder itself; and how it gets room."""
    disk = place / "disk"
    disk.mkdir()
    size = rng.randrange(60, 900)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield place, lambda: None
        return
    try:
        yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


CAMPAIGNS: dict[str, Callable[[Campaign, Path, str, Lab | None], None]] = {
    "kill": kill, "commands": commands, "together": together, "damage": damage, "full": full,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
