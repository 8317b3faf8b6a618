"""Run in several processes by the tests: a loop of four entries a step, with weights printed at the end.

Arguments: steps, and what happens to the last process before its third step ("", "die" or "fail").
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from guda_cli.errors import GudaError
from guda_cli.training import distributed, loop
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale

SIZE = 4


class Net(torch.nn.Module):
    """Two layers and a parameter that no entry uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        self.unused = torch.nn.Parameter(torch.ones(2))


def main(steps: int, trouble: str) -> None:
    torch.set_num_threads(1)
    distributed.join()
    net, saved = Net(), []

    def losses_at(step: int) -> Iterator[Tensor]:
        if step == 2 and 0 < distributed.rank() == distributed.world() - 1:
            if trouble == "die":
                os._exit(9)
            if trouble == "fail":
                raise GudaError("something is wrong here")
        x = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(step))
        for rows in Scale(accumulation=2).parts(SIZE):
            yield (net.layers(x[rows]) - x[rows].sum(1, keepdim=True)).square().sum() / SIZE

    def save(state: RunState) -> None:
        saved.append(state.step)

    told: list[float] = []
    hooks = loop.Hooks(on_step=told.append, save=save, save_seconds=1e6)
    spec = loop.LoopSpec(steps=steps, lr=0.05, seed=0, weight_decay=0.1, ema=0.5)
    found: dict[str, Tensor] = {}

    def work() -> None:
        found.update(loop.run(net, losses_at, spec, hooks=hooks))

    lost = ""
    try:
        if distributed.rank():
            distributed.follow("the work", lambda: found or None, work)
        else:
            with distributed.leading("the work", shared=True):
                work()
    except distributed.PeerLost as err:
        lost = err.message
    values = {name: value.tolist() for name, value in found.items()}
    print(json.dumps({"weights": values, "losses": told, "saved": saved, "lost": lost}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
