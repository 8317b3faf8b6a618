"""Workers that make several models at once, and the command that gives them work and shows how far they are.

A worker that ends before it should is told of, and what it had begun is done by another, from the state that
it saved. None of them outlives the command: a link that closes interrupts its worker, which saves its state.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, cast

from guda_cli.console import Meter
from guda_cli.errors import GudaError
from guda_cli.sections import to_dict
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.models import told
from guda_cli.workflow.models.told import Link, Message
from guda_cli.workflow.project.project import Project

MODULE = "guda_cli.workflow.models.worker"
PATIENCE = 120.0  # seconds that a worker has to save its state


@dataclass(frozen=True)
class Wanted:
    """A model to be made: its action, and the task as `Task.to_dict` has it."""

    action: Action
    task: Message


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    orders: Link
    doing: Wanted | None = None
    share: float = 0.0
    """How much of what it does is done."""
    earlier: float = 0.0
    """How much of that was done before."""
    ending: bool = False
    """Whether it was told that there is no more."""


@dataclass
class Pool:
    """Workers for one project."""

    project: Project
    full: ActionRecord | None
    device: str
    bar: Meter
    workers: list[_Worker] = field(default_factory=list)
    waiting: deque[Wanted] = field(default_factory=deque)
    heard: queue.SimpleQueue[tuple[_Worker, Message | None]] = field(default_factory=queue.SimpleQueue)
    warned: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    begun: bool = False

    def make(self, wanted: Sequence[Wanted], count: int) -> set[str]:
        """Make what is `wanted` in `count` processes; keys of what is in the store then.

        That is all of it, unless every process was ended by somebody. Errors are those of the first worker
        that has one.
        """
        self.waiting.extend(wanted)
        try:
            for _ in range(count):
                self._start()
            while self.workers:
                worker, message = self.heard.get()
                if message is None:
                    self._ended(worker)
                else:
                    self._take(worker, message)
        except BaseException:
            self._stop()
            raise
        return self.done

    def _start(self) -> None:
        """One more worker, with its first task; none where the system refuses a process."""
        # -P: no module is taken from the folder that this happens to run in
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError:
            return
        worker = _Worker(process, Link(cast(IO[bytes], process.stdin)))
        self.workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        with contextlib.suppress(OSError):  # it has ended: its listener says so
            worker.orders.send("about", **self._about())
        self._next(worker)

    def _about(self) -> Message:
        """What a worker must know before its first task."""
        project = self.project
        return {
            "store": str(project.store.root), "recipe": to_dict(project.recipe), "data": project.data.key,
            "full": self.full.key if self.full else None, "device": self.device, "wait": project.wait,
            "verbose": project.console.verbose, "argv": sys.argv[1:],
        }  # fmt: skip

    def _listen(self, worker: _Worker) -> None:
        answers = Link(cast(IO[bytes], worker.process.stdout))
        for message in answers.messages():
            self.heard.put((worker, message))
        answers.close()
        self.heard.put((worker, None))

    def _next(self, worker: _Worker) -> None:
        worker.doing, worker.share, worker.earlier = None, 0.0, 0.0
        with contextlib.suppress(OSError):
            if self.waiting:
                worker.doing = self.waiting.popleft()
                worker.orders.send(told.TASK, task=worker.doing.task)
            else:
                worker.ending = True
                worker.orders.send(told.END)

    def _take(self, worker: _Worker, message: Message) -> None:
        console, kind = self.project.console, message["kind"]
        if kind == told.SAY:
            console.say(message["text"])
        elif kind == told.DETAIL:
            console.detail(message["text"])
        elif kind == told.WARN:
            if message["text"] not in self.warned:  # all of them may find the same
                self.warned.add(message["text"])
                console.warn(message["text"])
        elif kind == told.BEGUN:
            if not self.begun:  # what it took to start them says nothing of the rate
                self.bar.began, self.begun = time.monotonic(), True
            worker.share = worker.earlier = message["share"]
            self.bar.first += worker.share
        elif kind == told.STEP:
            worker.share = message["share"]
            self.bar.within(sum(each.share for each in self.workers), **message["fields"])
        elif kind == told.DONE:
            self._made(worker, message)
        elif kind == told.ERROR:
            error = GudaError(message["error"], why=message["why"], fix=message["fix"])
            error.exit_code = message["code"]
            raise error

    def _made(self, worker: _Worker, message: Message) -> None:
        self.done.add(message["key"])
        worker.share = 0.0
        self.bar.part = sum(each.share for each in self.workers)
        if message["ran"]:
            self.project.ran.add(message["key"])
            self.bar.advance()
        else:
            self.bar.found()
        self._next(worker)

    def _ended(self, worker: _Worker) -> None:
        """It closed its link: as it was told to, or because somebody ended it."""
        self.workers.remove(worker)
        worker.orders.close()
        code = worker.process.wait()
        if worker.ending or worker.doing is None:
            return
        how = f"signal {-code}" if code < 0 else f"code {code}"
        goes_on = "another goes on with it" if self.workers else "this one goes on with it"
        self.project.console.warn(f"{worker.doing.action.what}: its process ended early ({how}); {goes_on}")
        self.waiting.appendleft(worker.doing)
        self.bar.first -= worker.earlier
        idle = [each for each in self.workers if not each.ending]
        if not idle and self.workers:  # the others were told that there is no more
            self._start()

    def _stop(self) -> None:
        """Interrupt all, and wait until they have saved their states."""
        for worker in self.workers:
            worker.orders.close()
        for worker in self.workers:
            try:
                worker.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
