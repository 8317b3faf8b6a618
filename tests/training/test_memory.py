"""A step that does not fit into memory is taken again in smaller parts: the same step, up to rounding."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from guda_cli import memory
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import TrainSpec
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Parts, Scale
from guda_cli.training.train import train
from guda_cli.unlearning import catalog
from guda_cli.unlearning.unlearn import unlearn
from tests.diffusion.tiny import bytes_images, make_schedule, make_unet
from tests.unlearning import helpers

SPEC = TrainSpec(steps=4, batch_size=12, lr=1e-3, warmup_steps=1, ema_decay=0.0, seed=1)


class Small(torch.nn.Module):
    """A network that has memory for `room` images at once, from its forward number `since` on."""

    def __init__(self, room: int, since: int = 0) -> None:
        super().__init__()
        self.inner, self.room, self.since = make_unet(0), room, since
        self.batches: list[int] = []

    def forward(self, x: Tensor, t: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        self.batches.append(len(x))
        out: tuple[Tensor] = self.inner(x, t, return_dict=return_dict)
        if len(x) > self.room and len(self.batches) > self.since:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return out


def trained(
    network: torch.nn.Module, hooks: loop.Hooks, resume: RunState | None = None, spec: TrainSpec = SPEC
) -> dict[str, Tensor]:
    return train(UNetDenoiser(network, make_schedule()), bytes_images(16), spec, resume=resume, hooks=hooks)


def assert_near(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    for name, value in others.items():
        torch.testing.assert_close(some[name], value, atol=2e-5, rtol=1e-3)


def test_the_batch_is_halved_until_it_fits_and_the_step_is_the_same() -> None:
    told: list[str] = []
    whole, losses = loop.Hooks(), []
    plain = trained(Small(100), whole)
    network, hooks = Small(4), loop.Hooks(say=told.append, on_step=losses.append)
    found = trained(network, hooks)
    assert network.batches == [12, 6, 3, 3, 3, 3] + 3 * [3, 3, 3, 3]
    assert_near(found, plain)
    assert told == ["memory did not suffice for a batch of 12: 3 entries at a time now"]
    assert (hooks.at_once, whole.at_once) == (3, None)
    assert len(losses) == 4


def test_a_resumed_run_goes_on_with_the_smaller_parts_to_the_same_bits() -> None:
    states: dict[int, bytes] = {}
    hooks = loop.Hooks(save=lambda s: states.update({s.step: s.to_bytes()}), save_seconds=0.0)
    network = Small(6, since=1)
    whole = trained(network, hooks)
    assert network.batches[:4] == [12, 12, 6, 6]  # memory became scarce in the second step
    for step, data in states.items():
        state = RunState.from_bytes(step, data)
        assert state.parts == (2 if step > 1 else None)
        again, later = loop.Hooks(), Small(6)
        found = trained(later, again, state)
        assert again.at_once == 6
        assert 12 not in later.batches[step <= 1 :]
        assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_one_entry_that_does_not_fit_ends_the_run() -> None:
    hooks = loop.Hooks()
    with pytest.raises(torch.OutOfMemoryError):
        trained(Small(0), hooks)
    assert hooks.at_once is None


@pytest.mark.parametrize("operator", sorted({*helpers.OPERATORS} - {*helpers.ANCHORS, "esd"}))
def test_operators_are_halved_where_their_loss_is_a_sum(operator: str) -> None:
    p = helpers.problem(operator, neighbours=3, retain="denoise", steps=3)
    divisible = operator not in ("siss", "erasediff")
    assert catalog.divisible(p.spec) == divisible

    def run(room: int, hooks: loop.Hooks) -> dict[str, Tensor]:
        network = Small(room)
        network.inner = make_unet(0, sample_size=4)
        return unlearn(UNetDenoiser(network, p.schedule), p, hooks=hooks)

    hooks = loop.Hooks()
    if not divisible:
        with pytest.raises(torch.OutOfMemoryError):
            run(4, hooks)
        return
    assert_near(run(4, hooks), run(100, loop.Hooks()))
    assert hooks.at_once == 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 5 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_for_want_of_memory(error: Exception, expected: bool) -> None:
    assert memory.ran_out(error) == expected


def test_parts_are_halved_down_to_one_entry() -> None:
    parts = Parts(Scale(accumulation=3), 10)
    sizes = [[len(rows) for rows in parts]]
    while parts.halve():
        sizes.append([len(rows) for rows in parts])
        assert torch.equal(torch.cat(list(parts)), torch.arange(10))
    assert sizes == [[4, 4, 2], [2] * 5, [1] * 10]
    assert not Parts(Scale(), 10, divisible=False).halve()


LIMITED = """
import dataclasses, json, resource, sys
import torch
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.training import loop
from tests.training import test_memory as here
from tests.diffusion.tiny import bytes_images, make_schedule, make_unet

torch.set_num_threads(1)
spec = dataclasses.replace(here.SPEC, steps=2, batch_size=64)
images = bytes_images(64, (1, 32, 32))
network = make_unet(0, sample_size=32, block_out_channels=(32, 64))

def run(batch, hooks):
    denoiser = UNetDenoiser(network, make_schedule())
    here.train(denoiser, images, dataclasses.replace(spec, batch_size=batch), hooks=hooks)

run(1, loop.Hooks())  # what is loaded and kept whatever the batch
lines = open("/proc/self/status").read().splitlines()
data = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + (int(sys.argv[1]) << 20),) * 2)
told = []
hooks = loop.Hooks(say=told.append)
run(64, hooks)
print(json.dumps([hooks.at_once, told]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by RLIMIT_DATA")
def test_allocations_that_really_fail() -> None:
    def run(megabytes: int) -> Any:
        command = [sys.executable, "-c", LIMITED, str(megabytes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    at_once, told = run(250)
    assert 1 <= at_once <= 32
    entries = "1 entry" if at_once == 1 else f"{at_once} entries"  # allocators may keep what is free
    assert told == [f"memory did not suffice for a batch of 64: {entries} at a time now"]
    assert run(8192) == [None, []]
