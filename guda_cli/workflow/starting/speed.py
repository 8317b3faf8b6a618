"""How fast this machine trains and scores with a recipe's network: a few real steps, timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import torch

from guda_cli.diffusion.networks import moved
from guda_cli.families.known import family_of
from guda_cli.sections import Recipe, to_dict
from guda_cli.store import Store
from guda_cli.training import train as training
from guda_cli.training.loop import Hooks
from guda_cli.workflow.project.compute import Compute, setup
from guda_cli.workflow.project.plan import SPEED
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.starting.proposal import Speed

STEPS, ROWS, TIMES = 4, 64, 2
UNKNOWN = tuple(str(i) for i in range(10))  # classes of a network whose data have not been read


def measure(recipe: Recipe, compute: Compute, groups: Iterable[str] = ()) -> Speed:
    """Seconds a forward-equivalent of training on noise, the least of a few steps, and of scoring.

    The first step is left out: it makes what the others use again.
    """
    family, spec = family_of(recipe), recipe.train
    shape = (recipe.data.channels, recipe.data.size, recipe.data.size)
    config = family.configs(recipe, shape, groups)
    network = moved(family.build(config[family.network], seed=0), compute.device)
    denoiser = family.denoiser(network, family.schedule(config["scheduler"]), None)
    images = torch.randint(0, 256, (ROWS, *shape), dtype=torch.uint8)
    clock = _Clock(compute)
    training.train(denoiser, images, dataclasses.replace(spec, steps=STEPS), hooks=Hooks(on_step=clock.tick))
    a_step = min(clock.gaps[1:])
    network.eval()
    x, t = torch.randn(ROWS, *shape, device=compute.device), torch.ones(ROWS, dtype=torch.int64)
    clock = _Clock(compute)
    with torch.inference_mode():
        for _ in range(TIMES + 1):
            denoiser.predict(x, t.to(compute.device))
            clock.tick(0.0)
    return Speed(a_step / (3.0 * spec.batch_size), min(clock.gaps[1:]) / ROWS)


def of_project(project: Project, device: str) -> Speed | None:
    """What was measured for the project's network on this machine, or is now; None of text-to-image models,
    whose parts would have to be there first."""
    recipe = project.recipe
    if project.family.parts or recipe.model.registered or recipe.model.base:
        return None
    compute = setup(device)
    known = project.store.get_document(SPEED) or {}
    if known.get("of") == _timed(recipe, compute):
        return Speed(known["training"], known["scoring"])
    data = project.known_data() if recipe.model.class_conditional else None
    found = measure(recipe, compute, data.counts if data else UNKNOWN)
    remember(project.store, recipe, compute, found)
    return found


def remember(store: Store, recipe: Recipe, compute: Compute, speed: Speed) -> None:
    """Keep what was measured for plans."""
    if not store.read_only:
        shape = [recipe.data.channels, recipe.data.size]
        timed = {"training": speed.training, "scoring": speed.scoring, "shape": shape}
        store.set_document(SPEED, {"of": _timed(recipe, compute), **timed})


def _timed(recipe: Recipe, compute: Compute) -> dict[str, Any]:
    """All that the speed is of."""
    return {
        "model": to_dict(recipe.model), "size": recipe.data.size, "channels": recipe.data.channels,
        "batch_size": recipe.train.batch_size, **compute.key,
    }  # fmt: skip


class _Clock:
    """Seconds between ticks: on a CPU those that it worked, or a busy minute would decide the proposal."""

    def __init__(self, compute: Compute) -> None:
        self.compute, self.gaps = compute, list[float]()
        self._last = self._now()

    def tick(self, _: float) -> None:
        now = self._now()
        self.gaps.append(now - self._last)
        self._last = now

    def _now(self) -> float:
        if self.compute.device.type == "cpu":
            return time.process_time() / self.compute.threads
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
