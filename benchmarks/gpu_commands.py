"""Sections of `gpu.py` about whole commands: Stable Diffusion 1.5's shapes, ten groups, starts, digests."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare
import sd15_shapes
from gpu_rows import Out

GUDA = """
import json, re, sys
from pathlib import Path
from guda_cli.app import run
code = run(sys.argv[2:])
torch, status = sys.modules.get("torch"), Path("/proc/self/status")
used = torch is not None and torch.cuda.is_initialized()
host = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
found = {"device": torch.cuda.max_memory_allocated() / 2**30 if used else 0.0,
         "host": int(host[1]) / 2**20 if host else 0.0}
Path(sys.argv[1]).write_text(json.dumps(found))
sys.exit(code)
"""
"""`guda`, and then how much memory it took."""


@dataclass(frozen=True)
class Spent:
    """Seconds on the wall and of all processors, GB at most on host and GPU, and what was printed."""

    wall: float
    cpu: float
    host: float
    device: float
    document: Mapping[str, Any]


def guda(folder: Path, device: str, *args: str, sets: Mapping[str, object] | None = None) -> Spent:
    """One command, in a process of its own. RuntimeError with what it said where it fails."""
    given = [part for name, value in (sets or {}).items() for part in ("--set", f"{name}={value}")]
    memory = folder / "memory.json"
    typed = [sys.executable, "-c", GUDA, str(memory), *args, *given, "--device", device, "--json", "-q"]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as told:
        start = time.perf_counter()
        child = subprocess.Popen(typed, cwd=folder, stdout=said, stderr=told)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        said.seek(0), told.seek(0)
        lines, why = said.read().splitlines(), told.read().strip().splitlines()
    if child.returncode:
        raise RuntimeError(f"guda {args[0]} ended with {child.returncode}: {' / '.join(why[-3:])}")
    documents = [line for line in lines if line.startswith("{")]
    peaks = json.loads(memory.read_text())
    document = json.loads(documents[-1]) if documents else {}
    return Spent(wall, usage.ru_utime + usage.ru_stime, peaks["host"], peaks["device"], document)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder of its own, whose store is not one of a folder above it."""
    before = os.environ.get("GUDA_STORE")
    os.environ["GUDA_STORE"] = ".guda"
    try:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    finally:
        os.environ.pop("GUDA_STORE") if before is None else os.environ.update(GUDA_STORE=before)


# -- Stable Diffusion 1.5's shapes ------------------------------------------------------------------


def commands(out: Out) -> None:
    """Taking over, unlearning and scoring with a pipeline of true shapes and random weights."""
    shapes, size = (sd15_shapes.TINY, 64) if out.small else (sd15_shapes.SD15, 512)
    steps = 4 if out.small else 40
    sets = {
        "data.size": size, "score.draws": 1, "score.calibration": 0, "train.mixed_precision": "bf16",
        "unlearn.params": "lora:4", "unlearn.steps": steps, "unlearn.batch_size": 4,
        "unlearn.null_groups": 0,
    }  # fmt: skip
    few, many = (2, 4) if out.small else (50, 100)
    pictures = [f"paintings/{style}/{i}.png" for style in sd15_shapes.STYLES for i in range(2)]
    with work_folder() as folder:
        sd15_shapes.build(folder / "pipeline", shapes)
        sd15_shapes.paint(folder / "paintings", size)
        weights = gigabytes(folder / "pipeline")
        unet = gigabytes(folder / "pipeline" / "unet")
        from_pipeline = ("train", "paintings", "--from", "pipeline", "--as-is")
        for what, args, changed, once in (
            ("train --from --as-is", from_pipeline, sets, weights),
            (f"unlearn --group van-gogh, {steps} steps of 4, lora:4", _unlearn("van-gogh"), {}, unet),
            (f"unlearn --group monet, {steps} steps of 4, lora:4", _unlearn("monet"), {}, unet),
            (f"score one image, {few} timesteps, 3 models", _score(few, pictures[:1]), {}, unet),
            (f"score four images, {many} timesteps, 3 models", _score(many, pictures[1:5]), {}, unet),
        ):
            _command(out, folder, what, args, changed, once)


def _unlearn(group: str) -> tuple[str, ...]:
    return ("unlearn", "--group", group)


def _score(timesteps: int, pictures: list[str]) -> tuple[str, ...]:
    return ("score", *pictures, "--timesteps", str(timesteps))


def _command(
    out: Out, folder: Path, what: str, args: tuple[str, ...], sets: Mapping[str, object], once: float
) -> None:
    """Seconds of a command, and its peak memory over the `once` GB of weights that it needs in float32."""
    found: list[Spent] = []

    def measure() -> float:
        found.append(guda(folder, out.device, *args, sets=sets))
        return found[0].wall

    if out.row(what, measure, "s", needs=10.0) is None:
        return
    out.row("  of all processors", lambda: found[0].cpu, "CPU s")
    out.row("  peak memory of the host / weights in float32", lambda: found[0].host / once, "")
    if out.device == "cuda":
        out.row("  peak memory of the GPU / weights in float32", lambda: found[0].device / once, "")


def gigabytes(folder: Path) -> float:
    """What the weights in `folder` take."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2**30


# -- answers ----------------------------------------------------------------------------------------


def answers(out: Out) -> None:
    """Forwards a second of one call that scores many images, in whatever form the program chooses.

    The network is `cifar10`'s; what is done once a model, such as choosing and compiling, was done by a call
    before.
    """
    import guda as api

    side, count = (8, 3) if out.small else (32, 64)
    timesteps, draws = (4 if out.small else 50), 2
    settings: dict[str, Any] = {
        "data.root": "", "data.size": side, "train.steps": 1, "train.batch_size": 6, "unlearn.steps": 1,
        "unlearn.batch_size": 6, "unlearn.neighbours": 2, "unlearn.null_groups": 0,
        "score.timesteps": timesteps, "score.draws": draws, "score.most_draws": draws, "score.calibration": 0,
    }  # fmt: skip
    if out.small:
        settings |= {f"model.{name}": value for name, value in bare.SMALL_MODEL.items()}
    with work_folder() as folder:
        sd15_shapes.paint(folder / "pictures", side)
        settings["data.path"] = str(folder / "pictures")
        project = api.open("cifar10", store=folder / "store", settings=settings, device=out.device)
        models = len(project.train()) + len(project.unlearn())
        for number, name in enumerate(("first", "second")):
            noise_images(folder / name, count, side, number)
        out.row("the first call", lambda: _wall(lambda: project.score(folder / "first")), "s")
        forwards = count * models * timesteps * draws
        out.row(
            f"guda.score, {count} images, {models} models",
            lambda: forwards / _wall(lambda: project.score(folder / "second")),
            "forwards/s", group="forwards cifar10", target="0.9",
        )  # fmt: skip


def noise_images(folder: Path, count: int, side: int, seed: int) -> None:
    """`count` pictures of noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


# -- small models -----------------------------------------------------------------------------------

BRIEF = {"train.steps": 3, "unlearn.steps": 1, "score.timesteps": 4}


def ten_groups(out: Out) -> None:
    """Ten groups of the digits unlearned by one call, beside one of them, models loaded before."""
    import guda as api

    steps = 4 if out.small else 200
    with work_folder() as folder:
        settings = {"train.steps": 3, "unlearn.steps": steps, "unlearn.null_groups": 0}
        project = api.open("digits", store=folder / "store", settings=settings, device=out.device)
        project.train()
        project.unlearn("digit-0", seed=1)
        one = out.row("one group", lambda: _wall(lambda: project.unlearn("digit-0", seed=2)), "s")
        ten = out.row("ten groups", lambda: _wall(lambda: project.unlearn(seed=3)), "s")
        if one and ten:
            out.row("ten groups / one group", lambda: ten / one, "", target="3 on a GPU")


def _wall(work: Any) -> float:
    start = time.perf_counter()
    work()  # ends when its models are stored
    return time.perf_counter() - start


def starts(out: Out) -> None:
    """`guda score` of one new image under a small model, start to end."""
    calls = 2 if out.small else 5
    with work_folder() as folder:
        guda(folder, out.device, "train", "digits", sets=BRIEF)
        guda(folder, out.device, "unlearn", "--group", "digit-0")
        guda(folder, out.device, "sample", "-n", str(calls), "--out", "new", sets={"sample.steps": 2})
        found: list[Spent] = []

        def measure() -> float:
            for number in range(calls):
                found.append(guda(folder, out.device, "score", f"new/{number:05d}.png"))
            return statistics.median(spent.wall for spent in found)

        out.row(f"guda score, one image of the digits, median of {calls}", measure, "s")
        if found:
            out.row("  of all processors", lambda: statistics.median(s.cpu for s in found), "CPU s")


# -- digests ----------------------------------------------------------------------------------------

PIXELS = """
name: twice-pixels
data: {{path: pictures, size: 32, channels: 3}}
model: {{block_out_channels: [{a}, {b}], norm_num_groups: 8, attention_head_dim: 8, add_attention: true,
        down_block_types: [DownBlock2D, AttnDownBlock2D], up_block_types: [AttnUpBlock2D, UpBlock2D]}}
train: {{steps: {steps}, batch_size: 16, warmup_steps: 1}}
unlearn: {{operator: retrack, steps: {steps}, batch_size: 8, null_groups: 0}}
"""
TEXT = """
name: twice-text
data: {{path: pictures, size: 32, channels: 3}}
model: {{text_conditional: true, block_out_channels: [{a}, {b}], norm_num_groups: 8, attention_head_dim: 4,
        down_block_types: [DownBlock2D, CrossAttnDownBlock2D],
        up_block_types: [CrossAttnUpBlock2D, UpBlock2D]}}
latent: {{block_out_channels: [16, 32], norm_num_groups: 4, steps: {steps}, batch_size: 4}}
text: {{hidden_size: 32, layers: 1, heads: 2, vocabulary: 520, steps: {steps}, batch_size: 8}}
diffusion: {{beta_schedule: scaled_linear, beta_start: 0.00085, beta_end: 0.012}}
train: {{steps: {steps}, batch_size: 16, warmup_steps: 1}}
unlearn: {{operator: "anchor:awss", steps: {steps}, batch_size: 8, null_groups: 0}}
"""


def twice(out: Out) -> None:
    """A pixel model and a text-to-image model trained and unlearned twice: the same digests or not."""
    values = {"steps": 3, "a": 8, "b": 16} if out.small else {"steps": 20, "a": 64, "b": 128}
    group = sorted(sd15_shapes.STYLES)[0]
    with work_folder() as folder:
        sd15_shapes.paint(folder / "pictures", 32)
        for what, text in (("a pixel model", PIXELS), ("a text-to-image model", TEXT)):
            recipe = folder / "recipe.yaml"
            recipe.write_text(text.format(**values))
            found: list[tuple[str, str]] = []
            for number in range(2):
                out.row(
                    f"{what}, trained and unlearned, time {number + 1}",
                    lambda recipe=recipe, found=found: _wall(
                        lambda: found.append(_digests(recipe, folder, group, out.device))
                    ),
                    "s",
                )
            if len(found) == 2:
                for place, name in enumerate(("trained", "unlearned")):
                    same = found[0][place] == found[1][place]
                    out.say(f"{what}, {name} twice", "the same digest" if same else "TWO DIGESTS")


def _digests(recipe: Path, folder: Path, group: str, device: str) -> tuple[str, str]:
    """Of the weights of a model trained in a store of its own, and of one unlearned from it."""
    import guda as api

    with tempfile.TemporaryDirectory(dir=folder) as store:
        project = api.open(recipe, store=Path(store), device=device)
        [full] = project.train()
        [without] = project.unlearn(group)
        return full.weights, without.weights
