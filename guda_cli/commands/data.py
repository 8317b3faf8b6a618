"""`guda data ls|get`: data sets that the shipped recipes read, and where they can be had."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.phrases import human_bytes
from guda_cli.session import ForceOption, Session, command_options

if TYPE_CHECKING:
    from guda_cli.data.known_sets import KnownSet

app = typer.Typer(
    name="data", help="List and fetch the data sets of the shipped recipes.", add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip


def _complete(incomplete: str) -> list[str]:
    from guda_cli.data.known_sets import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


@app.callback()
def _group() -> None:
    """List and fetch the data sets of the shipped recipes."""


@app.command("ls")
@command_options()
def list_sets(session: Session) -> None:
    """List the data sets that can be had, and the recipes that read them."""
    from guda_cli.data.known_sets import SETS

    session.console.data({"schema": "guda.data-sets/1", "sets": [_summary(known) for known in SETS]})
    if session.console.json:
        return
    rows = [
        (
            known.name,
            human_bytes(known.bytes) if known.files else "none",
            ", ".join(known.recipes),
            known.what,
        )
        for known in SETS
    ]
    session.console.out(
        session.console.table(("data set", "download", "recipes", "what"), rows, right=("download",))
    )
    session.console.out("guda data get NAME fetches one")


@app.command("get")
@command_options()
def get_set(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="digits, fashion-mnist, cifar10 or emoji-styles.", autocompletion=_complete
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Where it is put.", show_default="here")
    ] = Path(),
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PATH|URL",
            help="A file or folder that has it, or another mirror [public ones].",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Fetch a data set and say how to go on.

    Every file is checked by its SHA-256 before it gets its name; a cut download goes on where it ended. The
    network is used by this command alone. emoji-styles is drawn from what is fetched (needs guda[emoji]; ten
    minutes).
    """
    from guda_cli.data import known_sets
    from guda_cli.data.fetching import get

    known, console = known_sets.find(name), session.console
    if not known.files:
        from guda_cli.data.sources.stamp import digits_file

        command, path = known.command(Path()), digits_file()
        console.say("nothing to fetch: they come with scikit-learn")
        console.data(_got(known, path, [], command))
        console.out(command)
        return
    found = get(known, to, source, console, force=force)
    for line in found.licences:
        console.say(f"licence of {line}")
    command = known.command(found.path)
    console.say(f"{known.name}: {found.path}; go on with")
    console.data(_got(known, found.path, list(found.files), command))
    console.out(command)


def _summary(known: KnownSet) -> dict[str, Any]:
    return {
        "name": known.name,
        "what": known.what,
        "recipes": list(known.recipes),
        "bytes": known.bytes,
        "files": [{"name": f.name, "bytes": f.size, "sha256": f.sha256} for f in known.files],
        "mirrors": list(known.mirrors),
    }


def _got(known: KnownSet, path: Path, files: list[Path], command: str) -> dict[str, Any]:
    return {
        "schema": "guda.data/1",
        "name": known.name,
        "path": path,
        "files": [{"path": file, "bytes": file.stat().st_size} for file in files],
        "command": command,
    }
