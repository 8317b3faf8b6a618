"""`guda view`: pages from a local server, and a process with the models loaded that serves `guda score`."""

from __future__ import annotations

import contextlib
import os
import sys
import webbrowser
from typing import Annotated

import typer

from guda_cli.console import is_terminal
from guda_cli.errors import MissingError, UsageError
from guda_cli.session import Session, command_options


@command_options(device=True)
def view(
    session: Session,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0: a free one.")
    ] = 0,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser, where there is a display.")
    ] = True,
    idle: Annotated[
        float | None,
        typer.Option("--idle", metavar="MINUTES", min=0.0, help="End when nothing was asked for so long."),
    ] = None,
) -> None:
    """Serve pages on this machine alone: drop in a picture and see its card, browse the store.

    Prints the address, which holds a token; Ctrl-C ends it. As long as it runs, it lends guda score its
    models, so that a single image takes little more than its network does.
    """
    try:
        from guda_cli.view import server
    except ModuleNotFoundError as err:
        raise MissingError(
            f"guda view needs {err.name}, which is not installed", fix="pip install 'guda[view]'"
        ) from None
    from guda_cli.view.guard import Guard
    from guda_cli.view.worker import started

    store = session.open_store(create=False).root
    try:
        place = server.bound(port)
    except OSError as err:
        raise UsageError(f"--port {port}: {err.strerror or err}", fix="guda view --port 0") from None
    guard = Guard(place.getsockname()[1])
    with started(store, session.options.device) as worker:
        session.console.data({"schema": "guda.view/1", "address": guard.address})
        session.console.out(guard.address)
        if worker.public:
            session.console.say("guda score on this store has its models from here; Ctrl-C ends it")
        if open_ and is_terminal(sys.stdout) and _display():
            webbrowser.open(guard.address)
        with contextlib.suppress(KeyboardInterrupt):  # which is how it is ended
            server.serve(worker, place, guard, None if idle is None else 60.0 * idle)
    session.console.say("ended")


def _display() -> bool:
    """Whether a browser could show a window."""
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return shown or sys.platform in ("darwin", "win32")
