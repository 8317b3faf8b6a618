"""How many rows go through a network at once: found, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from guda_cli import memory
from guda_cli.phrases import plural

T = TypeVar("T")


class BatchSize:
    """Rows of one forward: as many as were asked for, until memory gives out, then half of them."""

    def __init__(self, rows: int, tell: Callable[[str], None]) -> None:
        self.rows, self._tell = rows, tell

    def fit(self, work: Callable[[int], T]) -> T:
        """What `work` makes of the rows of a forward; where they do not fit, of half of them, and so on.

        `work` is begun anew each time, and must give the same whatever the rows but for rounding. The error
        of a single row that does not fit is raised.
        """
        first = self.rows
        while True:
            try:
                found = work(self.rows)
                break
            except (MemoryError, RuntimeError) as err:
                if self.rows == 1 or not memory.ran_out(err):
                    raise
            self.rows //= 2  # out here the error has let go of the tensors that its frames held
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.rows < first:
            self._tell(
                f"{plural(first, 'row', 'rows')} of a batch did not fit in memory: going on with {self.rows} "
                "at a time, which changes results by rounding at most"
            )
        return found
