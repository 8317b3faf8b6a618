"""Made-up and damaged inputs for the real commands and readers, each in a process of its own with bounds.

python benchmarks/fuzz.py --minutes 5                 all kinds of inputs in turn, from seed 0
python benchmarks/fuzz.py --count 500 --kinds recipe,image --seed 1000
python benchmarks/fuzz.py --repeat recipe:17          one of them again, with all it printed

A fault is a traceback, exit 1, a crash, a hang, over 2 GB above the program's own memory, over 20 s of
processor time, or a character that commands a terminal in what was printed. Exits with 1 where there was one.
The inputs are left in a folder that is named.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' models
os.environ |= {"GUDA_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "GUDA_RESIDENT": "0"}
os.environ.pop("GUDA_STORE", None)

MOST_BYTES = 2 << 30
MOST_SECONDS = 20.0
PATIENCE = 60.0  # seconds on the wall: the machine may be busy
SPACE = 8 << 30  # bytes of addresses beyond the parent's
ALLOWED = set("\n\t") | {chr(code) for code in range(32, 127)}


@dataclass(frozen=True)
class Ended:
    """How one input ended."""

    code: int  # of the exit; minus the signal
    seconds: float  # of a processor
    extra: int  # bytes above what it began with
    hung: bool
    printed: str

    def faults(self) -> Iterator[str]:
        """What must not be."""
        if self.hung:
            yield "hang"
        elif self.code < 0:
            yield f"signal {-self.code}"
        if "Traceback (most recent" in self.printed or "Exception ignored" in self.printed:
            yield "traceback"
        elif self.code == 1 or "this is a bug" in self.printed:
            yield "exit 1"
        elif self.code > 7:
            yield f"exit {self.code}"
        if self.extra > MOST_BYTES or "not enough memory" in self.printed:
            yield "memory"
        if self.seconds > MOST_SECONDS:
            yield "slow"
        if any(not (c in ALLOWED or c.isprintable()) for c in self.printed):
            yield "control character"


def main(args: Sequence[str]) -> int:
    """Run what was asked for; 1 where anything went wrong."""
    from fuzz_inputs import KINDS, prepare

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="how long [1, or until --count]")
    parser.add_argument("--count", type=int, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--repeat", metavar="KIND:SEED")
    chosen = parser.parse_args(args)
    home = Path(tempfile.mkdtemp(prefix="guda-fuzz-"))
    print(f"preparing models in {home}", flush=True)
    with quiet(home / "prepared"):
        prepare(home)
    load(home)
    if chosen.repeat:
        kind, _, number = chosen.repeat.partition(":")
        ended = one(home, kind, int(number))
        print(ended.printed)
        print(
            f"exit {ended.code}, {ended.seconds:.1f} s, {ended.extra >> 20} MB: "
            f"{', '.join(ended.faults()) or 'sound'}"
        )
        print(f"its files: {home / 'work'}")
        return int(any(ended.faults()))
    return many(home, chosen.kinds.split(","), chosen.seed, chosen.count, chosen.minutes)


def load(home: Path) -> None:
    """Import what commands import, so that forks need not: by sound commands that calculate nothing."""
    import torch
    from fuzz_inputs import sound

    from guda_cli import app

    torch.set_num_threads(1)
    before = Path.cwd()
    with quiet(home / "prepared"):
        for command in sound(home):
            os.chdir(home)
            command() if callable(command) else app.run(command)
    os.chdir(before)
    gc.freeze()


@contextlib.contextmanager
def quiet(file: Path) -> Iterator[None]:
    """What is printed goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(out, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(out)


def many(home: Path, kinds: Sequence[str], first: int, count: int | None, minutes: float | None) -> int:
    """Inputs of all kinds in turn, faults as they are found, then a table."""
    until = time.monotonic() + 60.0 * (minutes or (1.0 if count is None else 1e6))
    done: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    faults: Counter[tuple[str, str]] = Counter()
    slowest = dict.fromkeys(kinds, (0.0, 0))
    largest = dict.fromkeys(kinds, (0, 0))
    print(f"seeds from {first}; again: python benchmarks/fuzz.py --repeat KIND:SEED", flush=True)
    number = first
    while time.monotonic() < until and (count is None or sum(done.values()) < count):
        kind = kinds[(number - first) % len(kinds)]
        ended = one(home, kind, number)
        done[kind] += 1
        refused[kind] += ended.code != 0
        slowest[kind] = max(slowest[kind], (ended.seconds, number))
        largest[kind] = max(largest[kind], (ended.extra, number))
        for fault in ended.faults():
            faults[kind, fault] += 1
            told = next((line for line in reversed(ended.printed.splitlines()) if "rror" in line), "")
            print(
                f"{kind}:{number}: {fault} (exit {ended.code}, {ended.seconds:.1f} s): {told[:200]!a}",
                flush=True,
            )
            if faults[kind, fault] <= 3:
                shutil.copytree(
                    home / "work", home / "found" / f"{kind}-{number}", symlinks=True, dirs_exist_ok=True
                )
        number += 1
    print(f"\n{'kind':<12}{'inputs':>8}{'refused':>9}{'most CPU s':>12}{'most MB':>9}  faults")
    for kind in kinds:
        found = ", ".join(f"{n} {what}" for (of, what), n in faults.items() if of == kind) or "none"
        print(
            f"{kind:<12}{done[kind]:>8}{refused[kind]:>9}{slowest[kind][0]:>12.1f}"
            f"{largest[kind][0] >> 20:>9}  {found}"
        )
    print(
        f"{'all':<12}{sum(done.values()):>8}{sum(refused.values()):>9}   inputs of faults: {home / 'found'}"
    )
    if not faults:
        shutil.rmtree(home)
    return int(bool(faults))


def one(home: Path, kind: str, number: int) -> Ended:
    """Make the input of a kind and a seed in `home`/work, and run it in a fork."""
    from fuzz_inputs import KINDS

    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    run = KINDS[kind](random.Random(f"{kind}:{number}"), home, work)
    child = os.fork()
    if child == 0:
        os._exit(_live(home, work, run))
    status, usage, hung = _waited(child)
    printed = (home / "printed").read_bytes().decode("utf-8", "surrogateescape")
    code = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    extra = max(0, (usage.ru_maxrss << 10) - int((home / "began").read_text()))
    return Ended(code, seconds, extra, hung or code == -signal.SIGXCPU, printed)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _live(home: Path, work: Path, run: object) -> int:
    """The life of the fork: bounded, its streams in a file."""
    from guda_cli import app, failures, standard_streams
    from guda_cli.console import Console

    try:
        (home / "began").write_text(str(resident()))  # less than its parent: pages of files are not handed on
        os.setsid()
        os.chdir(work)
        printed = os.open(home / "printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for own, here in ((0, nothing), (1, printed), (2, printed)):
            os.dup2(here, own)
        for own, name in enumerate(("stdin", "stdout", "stderr")):
            setattr(sys, name, open(own, "w" if own else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
        standard_streams.use()
        most = math.ceil(2 * MOST_SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (pages + SPACE, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if callable(run):
            try:
                run()
                code = 0
            except Exception as err:  # noqa: BLE001 - as a command's outermost frame
                code = failures.report(err, Console())
        else:
            assert isinstance(run, list)
            code = app.run([str(word) for word in run])
        sys.stdout.flush()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - told as the interpreter does
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    return code & 0xFF


def _waited(child: int) -> tuple[int, resource.struct_rusage, bool]:
    until, hung = time.monotonic() + PATIENCE, False
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage, hung
        if time.monotonic() > until and not hung:
            hung = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
