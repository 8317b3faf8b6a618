"""Several groups unlearned in one step each, on a device that one small network does not keep busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from guda_cli.console import Meter
from guda_cli.store import ActionRecord
from guda_cli.training.scale import Scale
from guda_cli.training.stacked import Parted
from guda_cli.unlearning import together
from guda_cli.workflow.keys.operations import UNLEARN
from guda_cli.workflow.models.jobs import LazyJobs, Task
from guda_cli.workflow.models.loaded import MAPS, Models
from guda_cli.workflow.project.project import Job, Made

DEVICES = ("cuda",)  # on a CPU ten groups in one step take ten times as long, and bits are promised there
COPIES = 6  # of a group's weights: themselves, gradient, moments, and what is stored
Planned = tuple[Job, Task]


def make_in_bundles(
    jobs: LazyJobs, planned: Sequence[Planned], full: ActionRecord | None, bar: Meter
) -> set[str]:
    """Unlearn as many of `planned` together as fit into memory; the keys of those that were.

    What has to be done alone is left for the caller.
    """
    recipe, project = jobs.project.recipe, jobs.project
    if full is None or jobs.compute.device.type not in DEVICES:
        return set()
    if not together.possible(recipe.unlearn, Scale.of(recipe.train)):
        return set()
    before, models = set(project.ran), jobs.models(full)
    for bundle in _bundles(jobs, planned):
        most = _at_once(models, recipe.unlearn.batch_size)
        for first in range(0, len(bundle), most):
            _make(jobs, bundle[first : first + most], models, bar)
    return project.ran - before


def _bundles(jobs: LazyJobs, planned: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Those that go on from one step with one seed, and so see the same images, timesteps and noise."""
    store = jobs.project.store
    found: dict[tuple[int | None, int], list[Planned]] = {}
    for job, task in planned:
        if task.operation == UNLEARN and store.lookup(job.action.key) is None:
            place = task.seed, store.state_step(job.action.key) or 0
            found.setdefault(place, []).append((job, task))
    yield from found.values()


def _at_once(models: Models, batch: int) -> int:
    """How many groups fit into half of the memory that the device has left, two at least."""
    if models.compute.device.type != "cuda":
        return 16
    free = torch.cuda.mem_get_info(models.compute.device)[0] // 2
    weights = sum(value.numel() for value in models.base.values())
    _, height, width = models.space.shape
    # as many feature maps again for the backward as `loaded` counts for a forward
    maps = 2 * MAPS * batch * height * width * models.family.width(models.stored.network)
    return int(max(2, free // (4 * (COPIES * weights + maps))))


def _make(jobs: LazyJobs, bundle: Sequence[Planned], models: Models, bar: Meter) -> None:
    """Unlearn a bundle together, or in halves where memory does not suffice; nothing where they must part."""
    removals = {job.action.key: task.removal for job, task in bundle}
    seed, project = bundle[0][1].seed, jobs.project
    begun = False

    def make(mine: Sequence[Job]) -> list[Made]:
        def tell(share: float, loss: float) -> None:
            nonlocal begun
            if not begun:
                bar.first, begun = bar.first + share * len(mine), True
            bar.within(share * len(mine), **({"loss": loss} if loss == loss else {}))

        project.console.detail(f"{len(mine)} groups are unlearned in one step each")
        wanted = [what for job in mine if (what := removals[job.action.key]) is not None]
        return jobs.builder.unlearn_together([job.action for job in mine], wanted, models, seed, tell)

    earlier, first, parts = set(project.ran), bar.first, list[Sequence[Planned]]()
    try:
        project.run_together([job for job, _ in bundle], make)
    except Parted:
        project.console.detail("each goes on alone")
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        half = len(bundle) // 2
        parts = [bundle[:half], bundle[half:]] if half > 1 else []
        project.console.detail(f"memory does not suffice for {len(bundle)} groups at once")
    made = project.ran - earlier
    bar.part = 0.0
    bar.first = bar.first if made else first
    for _ in made:
        bar.advance()
    for part in parts:
        _make(jobs, part, models, bar)
