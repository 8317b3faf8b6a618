"""The speed figures of guda, as ratios measured in one run on one machine.

    python benchmarks/run.py                 all but the main job
    python benchmarks/run.py --only scoring
    python benchmarks/run.py --main-job      also the README's main job, start to end (minutes)

It is about the CPU; `gpu.py` is about a GPU. Nothing here is part of a pass/fail test: each line says what
was measured and the target it is held to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gpu_commands
import sd15_shapes
from timing import Clock

from guda_cli import processors

REPEATS = 5
CPU = Clock("cpu")


def line(what: str, measured: str, target: str) -> None:
    print(f"{what:<62} {measured:>12}   target {target}", flush=True)


def wall(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# -- start-up ---------------------------------------------------------------------------------------


def startup() -> None:
    with tempfile.TemporaryDirectory() as folder:
        small_project(Path(folder))
        typer = [sys.executable, "-c", "import typer"]
        times = [wall(lambda: subprocess.run(typer, check=True)) for _ in range(9)]
        line("import typer alone: median of 9", f"{statistics.median(times):.3f} s", "-")
        for args, target in ((["--help"], 0.2), (["status"], 0.4), (["store", "ls"], 0.4)):
            command = [sys.executable, "-m", "guda_cli", *args]
            times = [
                wall(lambda c=command: subprocess.run(c, cwd=folder, capture_output=True, check=True))
                for _ in range(9)
            ]
            line(f"guda {' '.join(args)}: median of 9", f"{statistics.median(times):.3f} s", f"{target} s")
        score_start(Path(folder))


def score_start(folder: Path) -> None:
    """`guda score` of one new image, in seconds of all processors: other work moves them less."""
    calls = 5
    gpu_commands.guda(folder, "cpu", "sample", "-n", str(calls), "--out", "new", sets={"sample.steps": 2})
    torch = [cpu_seconds([sys.executable, "-c", "import torch"]) for _ in range(calls)]
    images = [f"new/{number:05d}.png" for number in range(calls)]
    found = [gpu_commands.guda(folder, "cpu", "score", image).cpu for image in images]
    scored, imported = statistics.median(found), statistics.median(torch)
    line(f"import torch alone: median of {calls}", f"{imported:.2f} CPU s", "-")
    line(f"guda score, one new image: median of {calls}", f"{scored:.2f} CPU s", "2.5 CPU s")
    line("guda score, one new image / import torch", f"{scored / imported:.2f}", "-")


def cpu_seconds(command: list[str]) -> float:
    """Of all processors, in a process of its own."""
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def small_project(folder: Path, *sets: str) -> None:
    """Digits, trained and unlearned briefly: what later commands find."""
    brief = ["--set", "train.steps=3", "--set", "unlearn.steps=1", *sets]
    for args in (["train", *brief], ["unlearn", "--all", *brief]):
        subprocess.run([sys.executable, "-m", "guda_cli", *args], cwd=folder, capture_output=True, check=True)


# -- scoring ----------------------------------------------------------------------------------------


def scoring() -> None:
    """Scoring with models loaded against the bare network time of the same forwards."""
    import torch

    torch.set_flush_denormal(True)

    from guda_cli.data.images import pixels_digest, to_float
    from guda_cli.data.sources import read_dataset
    from guda_cli.diffusion import elbo, grid
    from guda_cli.diffusion.schedule import from_config
    from guda_cli.families.pixels import Pixels, UNetDenoiser
    from guda_cli.sections import to_dict
    from guda_cli.settings.lookup import load

    recipe, _ = load("digits")
    data = read_dataset(recipe.data)
    config = Pixels().configs(recipe, (1, 8, 8))
    schedule = from_config(config["scheduler"])
    denoiser = UNetDenoiser(Pixels().build(config["unet"], 0).eval(), schedule)
    spec = to_dict(recipe.score)
    points = grid.build(grid.spec("strata", spec["timesteps"], spec["draws"], 0), schedule.T)
    models, batch = 11, 256  # the full model and ten groups
    for images in (1, 64):
        x0 = torch.from_numpy(to_float(data.images[:images]))
        digests = [pixels_digest(pixels) for pixels in data.images[:images]]
        rows = images * points.rows
        sizes = [batch] * (rows // batch) + ([rows % batch] if rows % batch else [])
        inputs = {n: (torch.randn(n, 1, 8, 8), torch.randint(1, schedule.T + 1, (n,))) for n in set(sizes)}

        @torch.inference_mode()
        def network(sizes: list[int] = sizes, inputs: dict = inputs) -> None:
            for n in sizes:
                denoiser.predict(*inputs[n])

        def score(x0: torch.Tensor = x0, digests: list[str] = digests) -> None:
            elbo.image_terms(denoiser, x0, digests, points, seed=0, batch_size=batch)

        ratio = paired_ratio(score, network, repeats=REPEATS * (11 if images == 1 else 1))
        what = f"scoring {images} image(s), {models} models, {points.rows} forwards each / network alone"
        line(what, f"{ratio:.3f}", "1.15")
    shares()


def shares() -> None:
    """How much of the bare network's speed scoring has: of this form, and of the fastest, compiled."""
    import bare
    import gpu_networks
    import torch

    case = bare.pixels("cifar10-small", (3, 16, 16), 128)
    network = case.network("cpu")
    score = gpu_networks.scored(case, network, torch.float32, gpu_networks.IMAGES)
    forms = (
        bare.Form("float32"),
        bare.Form("float32, channels_last, compiled", channels_last=True, compiled=True),
    )
    for form in forms:
        with bare.forward(form, case, network, "cpu") as forward:
            alone = lambda forward=forward: [forward() for _ in range(gpu_networks.IMAGES)]  # noqa: E731
            alone()  # compiled
            share = CPU.paired(alone, score, repeats=REPEATS)
        line(f"share of scoring, network of cifar10-small, {form.name}", f"{share:.3f}", "0.9")


def paired_ratio(first: Callable[[], None], second: Callable[[], None], *, repeats: int) -> float:
    """Median of first / second, measured alternately after a warm-up."""
    first(), second()
    return statistics.median(wall(first) / wall(second) for _ in range(repeats))


# -- unlearning -------------------------------------------------------------------------------------


def unlearning() -> None:
    """ReTrack, neighbour search included, against the same steps with the plain target."""
    import dataclasses

    import torch

    torch.set_flush_denormal(True)

    from guda_cli.data.sources import read_dataset
    from guda_cli.diffusion.schedule import from_config
    from guda_cli.families.pixels import Pixels, UNetDenoiser
    from guda_cli.settings.lookup import load
    from guda_cli.training import loop
    from guda_cli.unlearning.operators.base import Problem
    from guda_cli.unlearning.unlearn import unlearn

    recipe, _ = load("digits")
    data = read_dataset(recipe.data)
    images = torch.from_numpy(data.images)
    forget = torch.from_numpy(data.members(data.groups[0]))
    config = Pixels().configs(recipe, (1, 8, 8))
    schedule = from_config(config["scheduler"])

    def run(operator: str) -> Callable[[], None]:
        spec = dataclasses.replace(recipe.unlearn, operator=operator, steps=20)
        unet = Pixels().build(config["unet"], 0)
        problem, denoiser = Problem(images, forget, schedule, spec), UNetDenoiser(unet, schedule)
        return lambda: unlearn(denoiser, problem, hooks=loop.Hooks()) and None

    ratio = paired_ratio(run("retrack"), run("finetune"), repeats=REPEATS)
    line("retrack with neighbour search / same steps, plain target", f"{ratio:.3f}", "1.2")


# -- steps ------------------------------------------------------------------------------------------


def steps() -> None:
    """Training and unlearning beside the shortest loops that do the same to the same network."""
    import bare
    import gpu_networks

    case, count = bare.pixels("digits", (1, 8, 8), 128), 20
    network, few = case.network("cpu"), case.batch // 4
    for what, run, alone in (
        (
            "training",
            gpu_networks.trained(case, network, case.batch, "no"),
            bare.Steps(case.batch, average=True),
        ),
        ("retrack", gpu_networks.unlearned(case, network, few, "no", operator="retrack"), bare.Steps(few)),
        ("neggrad", gpu_networks.unlearned(case, network, few, "no", operator="neggrad"), bare.Steps(few)),
        (
            "retain: distill",
            gpu_networks.unlearned(case, network, few, "no", operator="retrack", retain="distill"),
            bare.Steps(few, teacher=True),
        ),
    ):
        with bare.flags():
            loop = bare.Loop(case, network, alone, "cpu")
        share = CPU.paired(lambda loop=loop: loop.run(count), lambda run=run: run(count), repeats=REPEATS)
        line(f"bare loop / {what}, {count} steps of {alone.rows}", f"{share:.3f}", "0.85")


def groups() -> None:
    """Ten groups unlearned against one: by one process, and by as many as there are cores."""
    sets = ["--set", "unlearn.steps=60", "--no-null"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_project(folder, "--set", "train.steps=20")
        times = {}
        for what, asked in (
            ("one", ["--group", "digit-0"]),
            ("ten", ["--all", "--jobs", "1"]),
            ("ten at once", ["--all", "--jobs", str(min(10, processors.usable()))]),
        ):
            store = folder / what
            shutil.copytree(folder / ".guda", store)
            command = [sys.executable, "-m", "guda_cli", "unlearn", *asked, *sets, "-q", "--json"]
            command += ["--store", str(store)]
            times[what] = wall(lambda c=command: subprocess.run(c, capture_output=True, check=True))
        line("unlearning ten groups / one group, one process", ratio_text(times["ten"], times["one"]), "10")
        cores = processors.usable()
        what = f"unlearning ten groups / one group, {cores} cores"
        line(what, ratio_text(times["ten at once"], times["one"]), f"{10 / cores:.0f}")


# -- memory -----------------------------------------------------------------------------------------


def memory() -> None:
    """Peak memory of `guda score` with more images and with more groups."""
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_project(folder, "--set", "score.timesteps=4")
        rng = np.random.default_rng(0)
        for images, count in (("queries", 1024), ("others", 200)):
            (folder / images).mkdir()
            for i in range(count):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / images / f"{i:04d}.png")
        few, all_groups = ["--group", "digit-0"], []
        # no image is scored twice: what the store has is read without networks
        base = peak(folder, "queries/00[0-5]*.png", few)
        line(
            "peak memory: 1,024 images / 60 images, one group",
            ratio_text(peak(folder, "queries", few), base),
            "1.0",
        )
        base = peak(folder, "others/00*.png", few)
        line(
            "peak memory: ten groups / one group, 100 images",
            ratio_text(peak(folder, "others/01*.png", all_groups), base),
            "1.0",
        )


def weights() -> None:
    """By how much peak memory grows with a network's weights: once them is the least."""
    commands = {
        "train --from --as-is": ("train", "paintings", "--from", "pipeline", "--as-is"),
        "unlearn, lora:4": ("unlearn", "--group", "van-gogh"),
        "score": ("score", "paintings/monet/0.png", "--timesteps", "2"),
    }
    sets = {
        "data.size": 64, "score.draws": 1, "score.calibration": 0, "unlearn.params": "lora:4",
        "unlearn.steps": 1, "unlearn.batch_size": 1, "unlearn.null_groups": 0,
    }  # fmt: skip
    peaks: dict[str, list[float]] = {what: [] for what in commands}
    sizes = []
    for shapes in (sd15_shapes.TINY, sd15_shapes.HALF):
        with gpu_commands.work_folder() as folder:
            sd15_shapes.build(folder / "pipeline", shapes)
            sd15_shapes.paint(folder / "paintings", 64)
            sizes.append(gpu_commands.gigabytes(folder / "pipeline"))
            for what, args in commands.items():
                given = sets if args[0] == "train" else None
                peaks[what].append(gpu_commands.guda(folder, "cpu", *args, sets=given).host)
    more = sizes[1] - sizes[0]
    for what, (thin, half) in peaks.items():
        line(
            f"peak memory of {what}: growth / {more * 2**30 / 1e9:.1f} GB of weights more",
            f"{(half - thin) / more:.3f}", "1.3",
        )  # fmt: skip


def ratio_text(value: float, base: float) -> str:
    return f"{value / base:.3f}"


def peak(folder: Path, images: str, groups: list[str]) -> float:
    """Peak resident memory, in MB, of one scoring in a process of its own."""
    # not ru_maxrss, which a child inherits from the process that started it
    code = (
        "import re, sys; from pathlib import Path; from guda_cli.app import run; code = run(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1], file=sys.stderr);"
        "sys.exit(code)"
    )
    sets = ["--set", "score.timesteps=4", "--set", "unlearn.steps=1", "--set", "train.steps=3"]
    done = subprocess.run(
        [sys.executable, "-c", code, "score", images, *groups, *sets, "-q", "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stderr.strip().splitlines()[-1]) / 1024


# -- the main job -----------------------------------------------------------------------------------


def main_job() -> None:
    """The README's main job after installation, and again when all is in the store."""
    with tempfile.TemporaryDirectory() as folder:
        args = [sys.executable, "-m", "guda_cli", "run"]
        for what, wanted in (("guda run on digits", "240 s"), ("guda run again", "-")):
            took = wall(lambda: subprocess.run(args, cwd=folder, capture_output=True, check=True))
            line(what, f"{took:.1f} s", wanted)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"startup": startup, "scoring": scoring, "unlearning": unlearning, "steps": steps}
    parts |= {"groups": groups, "memory": memory, "weights": weights}
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--main-job", action="store_true")
    given = parser.parse_args()
    os.environ.pop("GUDA_STORE", None)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    for name, part in parts.items():
        if given.only in (None, name):
            part()
    if given.main_job:
        main_job()


if __name__ == "__main__":
    main()
