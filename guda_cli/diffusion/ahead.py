"""The next batch is made while the device works on this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class Batch(Protocol):
    """What is made of tensors."""

    @property
    def tensors(self) -> list[Tensor]:
        """Those that lie on the device."""
        ...


B = TypeVar("B", bound=Batch)


def ahead(batches: Iterator[B], device: torch.device) -> Iterator[B]:
    """`batches` in their order, each made in a thread while the one before it is used; errors come as ever.

    On CUDA the thread works on a stream of its own, so that copies to the device go beside the network; who
    takes a batch waits for its copies on the device, not on the CPU.
    """
    side = _side(device) if device.type == "cuda" else None
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def made() -> tuple[B, torch.cuda.Event | None] | None:
        with ExitStack() as modes:  # which are each thread's own
            modes.enter_context(torch.inference_mode(inference))
            if not inference:
                modes.enter_context(torch.set_grad_enabled(grad))
            if side is not None:
                modes.enter_context(torch.cuda.stream(side))
            batch = next(batches, None)
            if batch is None:
                return None
            return batch, None if side is None else side.record_event()

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(made)
        while (found := coming.result()) is not None:
            coming = thread.submit(made)
            batch, copied = found
            if copied is not None:
                here = torch.cuda.current_stream(device)
                here.wait_event(copied)
                for value in batch.tensors:
                    value.record_stream(here)
            del found
            yield batch


@lru_cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """One a device: memory that a stream has used is its own."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
