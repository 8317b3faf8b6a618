"""How often the batches of an unlearning show the group: of a small group in few steps perhaps never."""

from __future__ import annotations

from torch import Tensor

from guda_cli.phrases import plural
from guda_cli.sections import UnlearnSpec
from guda_cli.training.stream import Stream
from guda_cli.unlearning import catalog


def times_drawn(forget: Tensor, spec: UnlearnSpec) -> int:
    """Entries of all batches that are images of `forget` [N] bool."""
    dose = catalog.dose(spec)
    if dose:
        return dose * spec.steps
    stream = Stream(len(forget), spec.batch_size, 1, (), spec.seed)
    return sum(int(forget[stream.indices(step)].sum()) for step in range(spec.steps))


def never(steps: int) -> str:
    """What is to be said of a group that no batch showed: its model is any such group's."""
    return f"the group was drawn 0 times in {plural(steps, 'step', 'steps')}"
