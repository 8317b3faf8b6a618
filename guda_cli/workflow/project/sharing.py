"""How models without a group share the cores: threads of each, and how many are made at once. No torch.

The sums of a float32 convolution are cut up among threads, so the bits of a model depend on their number. It
follows from the recipe and from the cores, never from how many models are made at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from guda_cli import environment, memory, processors
from guda_cli.store import ActionRecord
from guda_cli.training import distributed
from guda_cli.workflow.keys.operations import UNLEARN, Action
from guda_cli.workflow.project.plan import Planner
from guda_cli.workflow.project.project import Project

PER_THREAD = 1 << 17
"""Numbers in the first feature map of a batch that keep one thread busy: with half as many in each of two,
what they spend on waiting for each other is more than they save (docs/methods.md)."""
SMALL = 1 << 21
"""Numbers in the same map up to which a GPU takes as long to be told what to do as to do it."""
WORTH = 8.0  # seconds of work that a process is started for: its start takes half of that
PROCESS = 600 << 20  # bytes of a process that has loaded its packages
COPIES = 8  # of a network's weights: two networks, gradients, moments, what is read and what is stored
_GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


def threads(project: Project, operation: str, most: int) -> int:
    """Threads of a job that makes a model without a group, of `most`.

    GUDA_THREADS where it is set. Networks of others' making are taken to be large.
    """
    if environment.threads():
        return most
    numbers = _first_map(project, operation)
    return most if numbers is None else max(1, min(most, numbers // PER_THREAD))


def unknown(project: Project) -> bool:
    """Whether nobody says how many models are made at once, and nothing was timed here that would tell."""
    return not _asked(project) and Planner(project).rate is None


def workers(project: Project, missing: Sequence[Action], full: ActionRecord | None) -> int:
    """How many processes make the `missing` models; 1 is this one.

    As `Project.jobs` or GUDA_JOBS says, else by cores, by memory, and by what it costs to start them.
    """
    if not missing:
        return 1
    seconds = (Planner(project).rate or 0.0) * sum(action.forwards for action in missing)
    return at_once(project, missing[0].operation, len(missing), seconds, full)


def at_once(
    project: Project, operation: str, count: int, seconds: float, full: ActionRecord | None = None
) -> int:
    """The same of `count` models that one process would make in about `seconds`."""
    if distributed.world() > 1 or project.store.read_only or count < 2:
        return 1
    asked = _asked(project)
    if asked:
        return min(asked, count)
    most = environment.threads() or processors.usable()
    together = processors.usable() // threads(project, operation, most)
    return max(1, min(together, count, int(seconds / WORTH), _in_memory(project, operation, full)))


def stackable(project: Project, device: str) -> bool:
    """Whether a device may be kept busier by several groups in one step, as far as is known without torch."""
    numbers = _first_map(project, UNLEARN)
    small = numbers is not None and numbers <= SMALL
    alone = distributed.world() == 1 and not project.store.read_only
    return small and alone and _asked(project) != 1 and on_cpu(device) is not True


def _asked(project: Project) -> int | None:
    return project.jobs or environment.jobs()


def on_cpu(device: str) -> bool | None:
    """Whether networks will run on the CPU, as far as is known without torch; None where only it knows."""
    if device != "auto":
        return device == "cpu"
    return None if sys.platform == "darwin" or any(path.exists() for path in _GPUS) else True


def _first_map(project: Project, operation: str) -> int | None:
    """Numbers in the feature maps of the network's first level for the entries that are computed together."""
    recipe, family = project.recipe, project.family
    if recipe.model.registered or recipe.model.base:
        return None
    config = family.configs(recipe, project.data.shape, project.data.counts)[family.network]
    side = recipe.data.size
    if family.latent:
        side >>= len(recipe.latent.block_out_channels) - 1
    batch = (recipe.unlearn if operation == UNLEARN else recipe.train).batch_size
    rows = -(-batch // recipe.train.gradient_accumulation)
    return int(rows * side**2 * family.width(config))


def _in_memory(project: Project, operation: str, full: ActionRecord | None) -> int:
    """How many jobs fit into the memory that is free now, one at least."""
    free = memory.available()
    if free is None:
        return 1
    weights = project.store.blob_size(full.outputs["weights"]) if full is not None else 0
    maps = 4 * 40 * (_first_map(project, operation) or 0)  # as `models.loaded` estimates a forward's
    data = 2 * project.store.blob_size(project.data.blob)
    return max(1, free // (PROCESS + COPIES * weights + maps + data))
