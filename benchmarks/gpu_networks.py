"""Sections of `gpu.py` about networks: scoring, training and unlearning beside bare ones, noise, packing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import bare
import sd15_shapes
from gpu_rows import Out
from timing import Clock, step_seconds

if TYPE_CHECKING:
    import torch

COMPILING = (
    45.0  # seconds that the compilation of a network may take; of a large one, or with its backward, twice
)
IMAGES = 4  # that are scored together
GROUPS = 10  # equal ones, of which one is unlearned


def wide(out: Out) -> bare.Case:
    """Recipe `cifar10`'s network: 49 million parameters."""
    if out.small:
        return bare.pixels("cifar10", (3, 8, 8), 16, bare.SMALL_MODEL)
    return bare.pixels("cifar10", (3, 32, 32), 512)


def narrow(out: Out) -> bare.Case:
    """Recipe `fashion-mnist`'s network, 0.6 million parameters: on a GPU launches are what takes time."""
    if out.small:
        return bare.pixels("fashion-mnist", (1, 8, 8), 8, {**bare.SMALL_MODEL, "add_attention": False})
    return bare.pixels("fashion-mnist", (1, 16, 16), 128)


def sd15(out: Out) -> bare.Case:
    """Stable Diffusion 1.5's network at 64 x 64 latents: 860 million parameters."""
    shapes = sd15_shapes.TINY if out.small else sd15_shapes.SD15
    scheduler = {"num_train_timesteps": 1000, **sd15_shapes.SCHEDULER}
    prompts = [sd15_shapes.prompt(style) for style in sd15_shapes.STYLES]
    unet = {"in_channels": 4, "out_channels": 4, **shapes.unet}
    case = bare.text_to_image("sd15", unet, scheduler, 2 if out.small else 64, prompts)
    return traced(case) if out.small else case


def traced(case: bare.Case) -> bare.Case:
    """For trying the code: not compiled, which takes minutes on a CPU."""
    return dataclasses.replace(case, backend="eager")


# -- scoring ----------------------------------------------------------------------------------------


def scoring(out: Out) -> None:
    """Terms a second of the program beside forwards a second of the bare network, `cifar10`'s."""
    _score(out, wide(out))


def scoring_sd15(out: Out) -> None:
    """The same with Stable Diffusion 1.5's network."""
    _score(out, sd15(out), compiling=2 * COMPILING)


def scored(
    case: bare.Case, network: torch.nn.Module, dtype: torch.dtype, images: int, batch: int | None = None
) -> Callable[[], Any]:
    """The program's way from images and a network to their terms: the one place here that knows it.

    `batch` rows at a time; as many as the case has where None.
    """
    import torch

    from guda_cli.diffusion import elbo

    own = torch.nn.Module.to(copy.deepcopy(network).eval().requires_grad_(False), dtype=dtype)
    denoiser, points = case.adapt(own), grid_of(case)
    x0 = torch.randn(IMAGES, *case.shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)[:images]
    digests = [f"{number:064x}" for number in range(images)]
    cond = torch.ones(images, dtype=torch.int64) if case.text else None
    rows = batch or case.batch
    return lambda: elbo.image_terms(denoiser, x0, digests, points, seed=0, batch_size=rows, cond=cond)


def grid_of(case: bare.Case) -> Any:
    """As many terms an image as a batch has rows."""
    from guda_cli.diffusion import grid

    return grid.build(grid.spec("strata:even", case.batch, 1, 0), case.schedule.T)


def _score(out: Out, case: bare.Case, compiling: float = COMPILING) -> None:
    import torch

    clock, network = Clock(out.device), case.network(out.device)
    rows, unit, seconds = IMAGES * grid_of(case).rows, "forwards/s", 0.1 if out.small else 1.5
    peaks = []
    # the program first, with its own settings of torch, which the bare network does not keep
    for dtype in (torch.float32, torch.bfloat16):
        name = f"guda, elbo.image_terms, {str(dtype).removeprefix('torch.')}"
        out.row(
            name,
            lambda dtype=dtype: rows / clock.median(scored(case, network, dtype, IMAGES), seconds=seconds),
            unit, group=f"forwards {case.name}", target="0.9",
        )  # fmt: skip
        if dtype == torch.float32:
            work = scored(case, network, dtype, IMAGES)
            peaks.append(out.row("  peak memory", lambda work=work: clock.peak(work), "GB"))
    for form in bare.FORMS:
        _bare(out, clock, case, form, network, seconds, compiling)
        if form.name == "float32":
            with bare.forward(form, case, network, out.device) as work:
                peaks.append(out.row("  peak memory", lambda work=work: clock.peak(work), "GB"))
    if all(peaks):
        out.row("peak memory, guda / bare network, float32", lambda: peaks[0] / peaks[1], "")


def _bare(
    out: Out, clock: Clock, case: bare.Case, form: bare.Form, network: torch.nn.Module,
    seconds: float, compiling: float,
) -> None:  # fmt: skip
    def measure() -> float:
        with bare.forward(form, case, network, out.device) as work:
            return case.batch / clock.median(work, seconds=seconds)

    out.row(
        f"bare network, {form.name}", measure, "forwards/s",
        group=f"forwards {case.name}", bare=True, needs=compiling if form.compiled else 3.0,
    )  # fmt: skip


# -- training and unlearning ------------------------------------------------------------------------


def images_of(case: bare.Case, count: int) -> torch.Tensor:
    """Random pictures, uint8 [count, C, H, W]."""
    import torch

    return torch.randint(
        0, 256, (count, *case.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


def trained(case: bare.Case, network: torch.nn.Module, rows: int, precision: str) -> Callable[[int], None]:
    """The program's training for so many steps, with the recipe's settings."""
    from guda_cli.settings.lookup import load
    from guda_cli.training import loop
    from guda_cli.training.train import train

    spec = dataclasses.replace(load(case.name)[0].train, batch_size=rows, mixed_precision=precision)
    images = images_of(case, max(1024, rows))

    def run(steps: int) -> None:
        own = dataclasses.replace(spec, steps=steps)
        train(case.adapt(copy.deepcopy(network)), images, own, hooks=loop.Hooks())

    return run


def unlearned(
    case: bare.Case, network: torch.nn.Module, rows: int, precision: str, **settings: Any
) -> Callable[[int], None]:
    """The program's unlearning of a tenth of the images for so many steps."""
    import torch

    from guda_cli.settings.lookup import load
    from guda_cli.training import loop
    from guda_cli.training.scale import Scale
    from guda_cli.unlearning.operators.base import Problem
    from guda_cli.unlearning.unlearn import unlearn

    spec = dataclasses.replace(load(case.name)[0].unlearn, batch_size=rows, **settings)
    images = images_of(case, max(1024, rows))
    forget = torch.arange(len(images)) % GROUPS == 0
    full = copy.deepcopy(network).eval().requires_grad_(False) if spec.retain == "distill" else None

    def run(steps: int) -> None:
        problem = Problem(images, forget, case.schedule, dataclasses.replace(spec, steps=steps))
        unlearn(
            case.adapt(copy.deepcopy(network)), problem, teacher=None if full is None else case.adapt(full),
            scale=Scale(precision=precision), hooks=loop.Hooks(),
        )  # fmt: skip

    return run


def training(out: Out) -> None:
    """Steps a second of `cifar10`'s network, beside bare loops."""
    case = traced(wide(out)) if out.small else wide(out)
    network, rows, counts = case.network(out.device), case.batch // 2, (1, 9) if out.small else (2, 10)
    average = True  # as the recipe says
    for precision in ("no", "bf16"):
        name = {"no": "float32"}.get(precision, precision)
        _steps(
            out,
            f"guda train, {name}",
            trained(case, network, rows, precision),
            counts,
            f"cifar10 train {name}",
        )
    for group, settings in (
        ("retrack", {"operator": "retrack"}),
        ("neggrad", {"operator": "neggrad"}),
        ("siss", {"operator": "siss"}),
        ("distill", {"operator": "retrack", "retain": "distill"}),
    ):
        run = unlearned(case, network, rows, "bf16", **settings)
        _steps(out, f"guda unlearn, {group}, bf16", run, counts, f"cifar10 {_KINDS[group]}")
    for group, steps in (
        ("train float32", bare.Steps(rows, average=average)),
        ("train bf16", bare.Steps(rows, bf16=True, average=average)),
        ("unlearn", bare.Steps(rows, bf16=True)),
        ("two backwards", bare.Steps(rows, bf16=True, backwards=2)),
        ("teacher", bare.Steps(rows, bf16=True, teacher=True)),
    ):
        _bare_steps(out, f"bare loop, {group}", case, network, steps, counts, f"cifar10 {group}")
    compiled = bare.Steps(rows, bf16=True, average=average, compiled=True)
    _bare_steps(
        out,
        "bare loop, train bf16, compiled",
        case,
        network,
        compiled,
        counts,
        "cifar10 train bf16",
        2 * COMPILING,
    )


_KINDS = {"retrack": "unlearn", "neggrad": "unlearn", "siss": "two backwards", "distill": "teacher"}
"""Which bare loop does what an unlearning does."""


def training_small(out: Out) -> None:
    """Steps a second of a small network, beside bare loops and, on a GPU, a captured graph."""
    case = narrow(out)
    network, counts = case.network(out.device), (1, 21) if out.small else (5, 55)
    rows, few = case.batch, case.batch // 4
    _steps(out, "guda train", trained(case, network, rows, "no"), counts, "small train")
    run = unlearned(case, network, few, "no", operator="retrack")
    _steps(out, "guda unlearn, retrack", run, counts, "small unlearn")
    for group, steps in (("train", bare.Steps(rows, average=True)), ("unlearn", bare.Steps(few))):
        _bare_steps(out, f"bare loop, {group}", case, network, steps, counts, f"small {group}")
    for group, steps in (("train", bare.Steps(rows, average=True)), ("unlearn", bare.Steps(few))):
        if out.device == "cuda":
            _graph_steps(
                out, f"bare loop, {group}, CUDA graph", case, network, steps, counts, f"small {group}"
            )
        else:
            out.say(f"bare loop, {group}, CUDA graph", "left out: it needs CUDA")


def _steps(out: Out, what: str, run: Callable[[int], Any], counts: tuple[int, int], group: str) -> None:
    clock = Clock(out.device)
    out.row(what, lambda: 1.0 / step_seconds(clock, run, *counts), "steps/s", group=group, target="0.85")


def _bare_steps(
    out: Out, what: str, case: bare.Case, network: torch.nn.Module, steps: bare.Steps,
    counts: tuple[int, int], group: str, needs: float = 0.0,
) -> None:  # fmt: skip
    def measure() -> float:
        with bare.flags():
            loop = bare.Loop(case, network, steps, out.device)
            return 1.0 / step_seconds(Clock(out.device), loop.run, *counts)

    out.row(what, measure, "steps/s", group=group, bare=True, needs=needs)


def _graph_steps(
    out: Out, what: str, case: bare.Case, network: torch.nn.Module, steps: bare.Steps,
    counts: tuple[int, int], group: str,
) -> None:  # fmt: skip
    def measure() -> float:
        with bare.flags():
            graph = bare.Graph(bare.Loop(case, network, steps, out.device))
            return 1.0 / step_seconds(Clock(out.device), graph.run, *counts)

    out.row(what, measure, "steps/s", group=group, bare=True)


# -- noise and packing ------------------------------------------------------------------------------


def noise(out: Out) -> None:
    """Rows of noise a second, as scoring draws them."""
    import torch

    from guda_cli.diffusion.noise import QueryNoise

    count = 64 if out.small else 4096
    for shape in ((3, 32, 32), (4, 64, 64)):
        cells = [(f"{row:064x}", 1 + row, 0) for row in range(count)]
        room, source = torch.empty(count, *shape), QueryNoise(0)
        out.row(
            "noise of " + " x ".join(map(str, shape)),
            lambda room=room, source=source, cells=cells: (
                count
                / Clock("cpu").median(lambda: source.fill(room, cells), seconds=0.1 if out.small else 1.0)
            ),
            "rows/s",
        )


def packing(out: Out) -> None:
    """By how much float32 terms of an image differ with the batch that it is computed in."""
    import numpy as np
    import torch

    case = wide(out)
    network = case.network(out.device)
    together = np.asarray(scored(case, network, torch.float32, IMAGES)())
    for what, images, rows in (("thirds of a batch", IMAGES, case.batch // 3), ("one by one", 1, 1)):
        other = scored(case, network, torch.float32, images, rows)
        out.row(
            f"float32 terms, {what}: largest relative difference",
            lambda other=other, images=images: np.abs(other() / together[:images] - 1.0).max(),
            "",
        )
