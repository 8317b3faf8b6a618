"""What forwards in TF32, float16 and bfloat16 add to scores, beside the scores' own standard error.

    python benchmarks/precision.py FOLDER...
    python benchmarks/precision.py FOLDER --images 16

Each folder is one that `benchmarks/results.py` made: a store whose groups are unlearned, and drawn images in
`queries`. Scores some of these for every group as the recipe says, in float32 and in each of the others, and
prints the error as root mean square over images and groups in standard errors of the score, the worst, and of
how many images the first group is another. Works on any machine: the precisions are emulated by what a tensor
core does (weights, inputs and results of every layer rounded, sums in float32). `packing` is float32 again in
batches of another size: what rounding alone does. The stores are only read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import guda
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.scoring import counterfactuals, term_sizes
from guda_cli.workflow.scoring.answers import Reading, score_of
from guda_cli.workflow.scoring.conditions import Given, conditions_for
from guda_cli.workflow.scoring.run import load
from guda_cli.workflow.scoring.terms import Engine

Round = Callable[[Tensor], Tensor]
PRODUCTS = (nn.Linear, nn.Conv2d)


def tf32(values: Tensor) -> Tensor:
    """float32 with TF32's ten bits of mantissa, to the nearest, ties to even."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def half(dtype: torch.dtype) -> Round:
    """float32 with what `dtype` leaves of it."""
    return lambda values: values.to(dtype).float()


ROUNDINGS: dict[str, Round] = {
    "TF32": tf32,
    "float16": half(torch.float16),
    "bfloat16": half(torch.bfloat16),
}


class Emulated(Engine):
    """An engine whose layers see rounded weights and inputs; of half precisions results are rounded, too."""

    rounding: Round | None = None

    def _use(self, record: Any) -> Any:
        if self.rounding is None:
            return super()._use(record)
        weights = self.models.base | self.models.changes(record)
        products = {
            f"{name}.weight" for name, m in self.models.network.named_modules() if isinstance(m, PRODUCTS)
        }
        all_of_them = self.rounding is not tf32
        return self.models.swapped(
            {
                name: self.rounding(value)
                if value.is_floating_point() and (all_of_them or name in products)
                else value
                for name, value in weights.items()
            }
        )

    @contextmanager
    def rounded(self, rounding: Round | None) -> Iterator[None]:
        """Forwards so for as long as the context lasts."""
        self.rounding, handles = rounding, []
        leaves = [m for m in self.models.network.modules() if not list(m.children())] if rounding else []
        for module in leaves:
            if rounding is not tf32 or isinstance(module, PRODUCTS):
                handles.append(module.register_forward_pre_hook(lambda m, args: _mapped(rounding, args)))
            if rounding is not tf32:
                handles.append(module.register_forward_hook(lambda m, args, out: _mapped(rounding, out)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _mapped(rounding: Round | None, values: Any) -> Any:
    assert rounding is not None
    if isinstance(values, tuple):
        return tuple(_mapped(rounding, value) for value in values)
    return rounding(values) if isinstance(values, Tensor) and values.dtype == torch.float32 else values


def measure(folder: Path, images: int) -> None:
    """Rows of the table for one store."""
    project = guda.open(store=folder / ".guda")._open()
    found, spec = counterfactuals.find(project, "guda"), project.recipe.score
    jobs = LazyJobs(project, lambda: setup("cpu"))
    schedule = project.model(found.full).schedule
    layout = None
    if grids.needs_edges(spec.grid):
        layout = term_sizes.layout_for_now(project, found.full, spec.timesteps, jobs)
    grid = grids.build(grids.spec(spec.grid, spec.timesteps, spec.draws, spec.seed, layout), schedule.T)
    reading = Reading(grid, schedule, weightings.parse(spec.weighting), dict(project.data.counts))
    files = [str(path) for path in sorted((folder / "queries").glob("*.png"))[:images]]
    queries, _ = load(project, files, conditions_for(project, found.full, Given()))
    engine = Emulated(jobs.models(found.full), spec.seed, jobs.compute)

    def scores(rounding: Round | None) -> tuple[np.ndarray, np.ndarray]:
        """Values and standard errors [images, groups]."""
        with engine.rounded(rounding):
            full = engine.terms(found.full, queries, grid)
            of = [
                score_of(reading, full, engine.terms(models[0].record, queries, grid))
                for models in found.groups.values()
            ]
        return np.stack([one.value for one in of], axis=1), np.stack([one.se for one in of], axis=1)

    exact, se = scores(None)
    rows = engine.models.rows.rows
    engine.models.rows.rows = max(1, rows // 3)
    others = {"packing": scores(None)[0]}
    engine.models.rows.rows = rows
    others |= {name: scores(rounding)[0] for name, rounding in ROUNDINGS.items()}
    for name, values in others.items():
        off = np.abs(values - exact) / se
        moved = int((values.argmax(axis=1) != exact.argmax(axis=1)).sum())
        print(
            f"| {project.recipe.name} | {name} | {np.sqrt(np.mean(off**2)):.2g} | {off.max():.2g} | "
            f"{moved} of {len(queries)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    print("| recipe | precision | added error, s.e. | worst, s.e. | first group moved |")
    print("| --- | --- | --- | --- | --- |")
    for folder in options.folders:
        measure(folder, options.images)


if __name__ == "__main__":
    main()
