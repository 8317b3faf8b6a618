"""A worker: a process that makes the models that a command asks it for, by the usual code."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from guda_cli import failures
from guda_cli.console import Console, Meter
from guda_cli.settings.reading import from_dict
from guda_cli.store import Store
from guda_cli.workflow.keys.operations import DataRef
from guda_cli.workflow.models import told
from guda_cli.workflow.models.jobs import LazyJobs, Task
from guda_cli.workflow.models.told import Link, Message
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.project.project import Project

OFTEN = 0.3  # seconds between two messages on how far a job is


class Relay(Console):
    """A console whose remarks and progress the command shows."""

    def __init__(self, link: Link, *, verbose: bool) -> None:
        super().__init__(quiet=True, verbose=verbose)
        self.link = link

    def say(self, text: str, style: str = "") -> None:
        """See `Console.say`."""
        self.link.send(told.SAY, text=text)

    def detail(self, text: str) -> None:
        """See `Console.detail`."""
        if self.verbose:
            self.link.send(told.DETAIL, text=text)

    def warn(self, text: str) -> None:
        """See `Console.warn`."""
        self.link.send(told.WARN, text=text)

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "step", start: int = 0) -> Iterator[Meter]:
        """See `Console.progress`."""
        if unit != "step":  # of something beside the job: reading images, say
            yield _Unseen(title, total, unit, start)
            return
        self.link.send(told.BEGUN, share=start / total if total else 0.0)
        yield _Told(self.link, title, total, start)


class _Unseen(Meter):
    def _show(self) -> None:
        pass


class _Told(Meter):
    """Tells the command how far the job is, now and then."""

    def __init__(self, link: Link, title: str, total: int, start: int) -> None:
        super().__init__(title, total, "step", start)
        self._link, self._last = link, 0.0

    def _show(self) -> None:
        now = time.monotonic()
        if self.total and now - self._last >= OFTEN:
            self._last = now
            self._link.send(told.STEP, share=self.done / self.total, fields=self.fields)


def main() -> None:
    """`python -m guda_cli.workflow.models.worker`, as `models.pool` starts it; ends with an exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the command says when to stop
    failures.terminate_like_interrupt()
    orders, answers = Link(sys.stdin.buffer), Link(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # nothing else that is printed may come between messages
    try:
        sys.exit(_outcome(orders, answers))
    except KeyboardInterrupt:  # it comes while another error is told
        sys.exit(143)


def _outcome(orders: Link, answers: Link) -> int:
    """The exit code of the work, whose error is told to the command."""
    try:
        work(orders, answers)
    except BaseException as err:  # noqa: BLE001 - the outermost frame: everything ends as a message
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        known = failures.explain(err)
        if failures.debugging():
            failures.report(err, Console())
        if not isinstance(err, KeyboardInterrupt):
            said = {"error": known.message, "why": known.why, "fix": known.fix, "code": known.exit_code}
            with suppress(OSError, ValueError):
                answers.send(told.ERROR, **said)
        return known.exit_code
    return 0


def work(orders: Link, answers: Link) -> None:
    """Do what is asked for over `orders`: first what it is about, then tasks, until END."""
    waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders, waiting), daemon=True).start()
    about = waiting.get()
    if about is None:
        return
    sys.argv[1:] = about["argv"]  # what records say of who made them
    store = Store.open(about["store"], create=False)
    store.attend()
    project = Project(
        from_dict(about["recipe"]), store, Relay(answers, verbose=about["verbose"]), wait=about["wait"]
    )
    data = store.lookup(about["data"])
    if data is not None:
        project.read_already(DataRef.of(data))
    full = store.lookup(about["full"]) if about["full"] else None
    jobs = LazyJobs(project, lambda: setup(about["device"]))
    while (order := waiting.get()) is not None:
        record = project.ensure(jobs.job(Task.of(order["task"]), full))
        answers.send(told.DONE, key=record.key, ran=record.key in project.ran)


def _listen(orders: Link, waiting: queue.SimpleQueue[Message | None]) -> None:
    """Pass on what is asked for. Without END the command is gone, or was interrupted: so is this."""
    for message in orders.messages():
        if message["kind"] == told.END:
            waiting.put(None)
            return
        waiting.put(message)
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)  # which wakes the main thread, whatever it waits for
    else:
        signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
