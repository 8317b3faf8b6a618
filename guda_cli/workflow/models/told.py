"""What a command and its workers tell each other: lines of JSON, one object each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from typing import IO, Any

Message = dict[str, Any]
TASK, END = "task", "end"
"""To a worker: a task, or that there are no more. A link that closes without END interrupts it."""
SAY, WARN, DETAIL, BEGUN, STEP, DONE, ERROR = "say", "warn", "detail", "begun", "step", "done", "error"
"""From a worker."""


class Link:
    """One direction of a pipe; several threads may write."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self._lock = stream, Lock()

    def send(self, kind: str, **values: Any) -> None:
        """Write a message; OSError or ValueError where nobody reads it any more."""
        line = json.dumps({"kind": kind, **values}).encode() + b"\n"
        with self._lock:
            self.stream.write(line)
            self.stream.flush()

    def messages(self) -> Iterator[Message]:
        """What is sent, until the other end closes. A line that was cut off is none."""
        for line in self.stream:
            with suppress(ValueError):
                yield json.loads(line)

    def close(self) -> None:
        """Close it; what is still buffered goes nowhere where the other end is gone."""
        with suppress(OSError):
            self.stream.close()
