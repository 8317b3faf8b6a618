"""How often a 95 % interval holds the truth: every timestep of a few images, and many scoring seeds of them.

    python benchmarks/coverage.py --store .guda
    python benchmarks/coverage.py --store .guda --images 12 --noises 4 --weightings min-snr:5,elbo

Computes the terms at every timestep (`--noises` draws) of training images under the full model and some
models without a group: their mean is the truth. Then draws `--seeds` grids as `guda score` would, taking the
terms from those, and prints for each weighting and number of draws the share of intervals that hold the
truth, the worst image's, the standard error claimed and the true one; beside even strata and intervals of
1.96 errors. About as many forwards as T x images x noises x (groups + 1).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import guda
from guda_cli.attribution import delta_elbo
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.intervals import Z95
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.scoring import counterfactuals, term_sizes
from guda_cli.workflow.scoring.training_queries import training_queries


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default=".guda")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--noises", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=150)
    parser.add_argument("--draws", default="1,2,4,8")
    parser.add_argument("--weightings", default="min-snr:5,min-snr:1,min-snr:0.1,uniform,elbo")
    options = parser.parse_args()
    project = guda.open(store=options.store)._open()
    found = counterfactuals.find(project, "guda")
    jobs = LazyJobs(project, lambda: setup("cpu"))
    layout = term_sizes.layout(project, found.full, project.recipe.score.timesteps, jobs)
    terms = _terms(project, found, jobs, options)
    schedule = project.model(found.full).schedule
    n = project.recipe.score.timesteps
    print(
        "| weighting | draws | strata | covered | worst image | claimed s.e. | true s.d. | covered by 1.96 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.weightings.split(","):
        multiplier = weightings.parse(name).multiplier(schedule)
        for draws in map(int, options.draws.split(",")):
            for kind, own in (("sized", layout), ("even", None)):
                specs = [grids.spec("strata", n, draws, 1000 + s, own) for s in range(options.seeds)]
                row = _covered(terms, [grids.build(spec, schedule.T) for spec in specs], multiplier)
                print(
                    f"| {name} | {draws} | {kind} | " + " | ".join(f"{v:.3g}" for v in row) + " |", flush=True
                )


def _terms(project: Any, found: Any, jobs: LazyJobs, options: argparse.Namespace) -> np.ndarray:
    """Differences of terms [images, groups, noises, T]."""
    from guda_cli.workflow.scoring.terms import Engine

    data, schedule = project.dataset(), project.model(found.full).schedule
    rows = np.random.default_rng(0).choice(len(data), options.images, replace=False)
    queries = training_queries(project, rows.tolist())
    grid = grids.build(grids.spec("all", 0, options.noises, 77), schedule.T)
    engine = Engine(jobs.models(found.full), 77, jobs.compute)
    full = engine.terms(found.full, queries, grid)
    models = [models[0].record for models in list(found.groups.values())[: options.groups]]
    return np.stack([engine.terms(record, queries, grid) - full for record in models], axis=1)


def _covered(terms: np.ndarray, drawn: list[grids.Grid], multiplier: np.ndarray) -> tuple[float, ...]:
    images, groups, noises, _ = terms.shape
    truth = (terms.mean(axis=2) * multiplier[1:]).sum(axis=-1).reshape(-1)
    rng = np.random.default_rng(1)
    inside, plain, errors, claimed = [], [], [], []
    for grid in drawn:
        noise = rng.integers(0, noises, (images, *grid.timesteps.shape))
        cells = np.stack([terms[i][:, noise[i], grid.timesteps - 1] for i in range(images)])
        made = delta_elbo.estimate(cells.reshape(images * groups, *grid.timesteps.shape), grid, multiplier)
        away = np.abs(made.value - truth)
        inside.append(away <= made.reach)
        plain.append(away <= Z95 * made.se)
        errors.append(away**2)
        claimed.append(made.se**2)
    by_image = np.mean(inside, axis=0).reshape(images, groups).mean(axis=1)
    return (
        float(np.mean(inside)), float(by_image.min()), float(np.sqrt(np.mean(claimed))),
        float(np.sqrt(np.mean(errors))), float(np.mean(plain)),
    )  # fmt: skip


if __name__ == "__main__":
    main()
