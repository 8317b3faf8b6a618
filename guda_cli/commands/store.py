"""`guda store ls|show|verify|gc|pin|unpin|export`: the store as a user sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.commands import store_listing
from guda_cli.commands.store_listing import SHORT
from guda_cli.console import width_of
from guda_cli.errors import GudaError, MissingError
from guda_cli.phrases import human_bytes
from guda_cli.plain_text import unicode
from guda_cli.session import Session, command_options, complete_key

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord, Store
    from guda_cli.store.gc import GcReport
    from guda_cli.store.verify import VerifyReport

app = typer.Typer(
    name="store",
    help="Look into the store; verify it, clean it, export from it.",
    add_completion=False,
    rich_markup_mode=None,
)
Key = Annotated[
    str,
    typer.Argument(
        metavar="RECORD",
        help="Its name, such as 'full model' or 'without digit-3', or how its key begins.",
        autocompletion=complete_key,
    ),
]


@app.callback()
def _group() -> None:
    """Look into the store; verify it, clean it, export from it."""


@app.command("ls")
@command_options()
def list_records(
    session: Session,
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="Every record of this kind, such as train or unlearn."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every record of every kind.", show_default=False)
    ] = False,
    operation: Annotated[
        str | None, typer.Option("--operation", metavar="NAME", help="The same as KIND.")
    ] = None,
) -> None:
    """List what was made and kept: how much of every kind, or the records of one.

    With --json always the records themselves.
    """
    store = session.open_store(create=False)
    found = store_listing.document(store, list(store.records()), store.tables())
    kind = kind or operation
    shown = store_listing.of_kind(found, kind) if kind else found
    session.console.data(shown)
    if session.console.json:
        return
    out, console = session.console.out, session.console
    if not shown["records"] and not shown["tables"]:
        out("nothing in this store" + (f" of kind '{kind}'" if kind else ""))
        return
    if kind or every:
        if shown["records"]:
            out(store_listing.records_table(console, shown))
        if shown["tables"]:
            out(store_listing.tables_table(console, shown))
    else:
        out(store_listing.kinds_table(console, shown, width_of(sys.stdout)))
        out("guda store ls KIND lists the records of a kind, --all every record")
    out(f"{store.root}: {human_bytes(found['bytes'])} in all")


@app.command("show")
@command_options()
def show_record(session: Session, key: Key) -> None:
    """Show one record: what was made, from what, by which command, with which versions."""
    import yaml

    store = session.open_store(create=False)
    record = _chosen(session, store, key)
    details = {
        **asdict(record),
        "sizes": store_listing.sizes(store, record),
        "pinned": record.key in store.pins(),
    }
    session.console.data({"schema": "guda.store-record/1", **details})
    if not session.console.json:
        text = yaml.safe_dump(details, sort_keys=False, allow_unicode=True, width=100)
        session.console.out(*text.rstrip().split("\n"))


@app.command("verify")
@command_options()
def verify_store(session: Session) -> None:
    """Hash everything in the store and quarantine what is damaged.

    Ends with code 5 when something was; the next command that needs it makes it again.
    """
    store = session.open_store(create=False)
    megabytes = 1 << 20
    total = store.usage()["blobs"]["bytes"] // megabytes
    with session.console.progress("verifying", total, unit="MB") as bar:
        report = store.verify(lambda done, _: bar.advance(done // megabytes - bar.done))
    session.console.data(
        {
            "schema": "guda.store-verify/1",
            "clean": report.clean,
            "quarantined": not store.read_only,
            "checked": report.checked,
            "bytes": report.bytes,
            "corrupt": [asdict(entry) for entry in report.corrupt],
            "damaged_records": report.damaged_records,
            "missing_outputs": [asdict(entry) for entry in report.missing_outputs],
        }
    )
    for line in _verify_lines(report, store):
        session.console.out(line)
    if not report.clean:
        raise typer.Exit(5)


@app.command("gc")
@command_options()
def collect_garbage(
    session: Session,
    force: Annotated[
        bool, typer.Option("--force", help="Remove it; without this it is only listed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list it, also with --force.", show_default=False)
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, help="Keep what is younger than this.")
    ] = 3600.0,
) -> None:
    """List, or with --force remove, what neither the current recipe nor a pin nor a running command needs."""
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.project.roots import roots as roots_of

    store = session.open_store(create=False)
    current = session.current() is not None
    roots = roots_of(Project(session.recipe(), store, session.console)) if current else None
    if roots is None:
        session.console.warn("what the current recipe needs cannot be told (guda status); every record stays")
    keys, tables = roots or ({record.key for record in store.records()}, None)
    report = store.gc(
        keys,
        table_roots=tables,
        dry_run=dry_run or not force,
        grace_seconds=grace,
        wanted=lambda what: _wanted_by_others(session, store, what),
    )
    kinds = {
        name: [asdict(each) for each in getattr(report, name)]
        for name in ("records", "blobs", "states", "temp")
    }
    document = {"schema": "guda.store-gc/1", "removed": force and not dry_run, "bytes": report.bytes, **kinds}
    session.console.data(document)
    for line in _gc_lines(report):
        session.console.out(line)


@app.command("pin")
@command_options()
def pin_record(
    session: Session,
    key: Key,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why it is kept.")] = "",
) -> None:
    """Keep a record, and everything it was made from, from being collected."""
    store = session.open_store(create=False)
    record, note = _chosen(session, store, key), unicode(note)
    store.pin(record.key, note)
    _tell_pin(session, record.key, pinned=True, note=note)


@app.command("unpin")
@command_options()
def unpin_record(session: Session, key: Key) -> None:
    """Take a pin away."""
    store = session.open_store(create=False)
    pins = store.pins()
    found = [pinned for pinned in pins if pinned.startswith(key.lower())]
    if not found and not pins:
        raise MissingError("nothing is pinned in this store", fix="guda store ls --all")
    if len(found) != 1:  # of a pin whose record is gone there is the key alone
        found = [_chosen(session, store, key, pins).key]
    store.unpin(found[0])
    _tell_pin(session, found[0], pinned=False, note="")


@app.command("export")
@command_options()
def export_record(
    session: Session,
    key: Key,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to make; must not exist or be empty.")
    ],
) -> None:
    """Write a model as an ordinary diffusers folder that `from_pretrained` opens."""
    from guda_cli.workflow.models.export import export_model

    store = session.open_store(create=False)
    record = _chosen(session, store, key)
    export_model(store, record, folder)
    session.console.data({"schema": "guda.store-export/1", "key": record.key, "folder": folder.absolute()})
    session.console.out(str(folder))


def _wanted_by_others(
    session: Session, store: Store, what: Mapping[str, Any]
) -> tuple[set[str], set[str]] | None:
    """What the recipe needs that another process is at work on; None where that cannot be told."""
    from guda_cli.settings import lookup
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.project.roots import roots

    recipe = what.get("recipe")
    if not isinstance(recipe, dict):
        return set(), set()
    try:
        return roots(Project(lookup.override(recipe, (), Path.cwd()), store, session.console))
    except GudaError:
        return None


def _needed(session: Session, store: Store) -> set[str]:
    """Keys that the current recipe's settings lead to; none where that cannot be told."""
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.project.roots import roots

    try:
        found = roots(Project(session.recipe(), store, session.console))
    except GudaError:
        return set()
    return found[0] if found else set()


def _chosen(session: Session, store: Store, text: str, among: Collection[str] | None = None) -> ActionRecord:
    """The record that is called so, or whose key begins so."""
    from guda_cli.workflow.models.chosen_record import find

    return find(store, text, lambda: _needed(session, store), among)


def _verify_lines(report: VerifyReport, store: Store) -> list[str]:
    """What a person reads after `guda store verify`."""
    lines = [f"checked {report.checked} objects, {human_bytes(report.bytes)}"]
    for entry in report.corrupt:
        users = [_name(store, key) for key in entry.actions] + [f"table {t[:SHORT]}" for t in entry.tables]
        lines.append(f"corrupt: {entry.digest[:SHORT]} of {', '.join(users) or 'nothing'}")
    lines += [f"damaged record: {name}" for name in report.damaged_records]
    lines += [
        f"missing: {m.name} {m.digest[:SHORT]} of {_name(store, m.owner)}" for m in report.missing_outputs
    ]
    if report.clean:
        lines.append("everything is as it was written")
    elif store.read_only:
        lines.append("the store is read-only, so the damage stays where it is")
    else:
        lines.append("what is damaged was put into quarantine; the next command that needs it makes it again")
    return lines


def _name(store: Store, key: str) -> str:
    record = store.lookup(key)
    what = record.provenance.get("what") if record else None
    return f"{what} ({key[:SHORT]})" if what else key[:SHORT]


def _gc_lines(report: GcReport) -> list[str]:
    """What a person reads after `guda store gc`."""
    kinds: list[tuple[str, Callable[[GcReport], list[Any]]]] = [
        ("records", lambda r: r.records),
        ("objects", lambda r: r.blobs),
        ("resume states", lambda r: r.states),
        ("temporary files", lambda r: r.temp),
    ]
    lines = []
    for name, of in kinds:
        found = of(report)
        if found:
            lines.append(f"{len(found):>6} {name:<16} {human_bytes(sum(each.bytes for each in found)):>10}")
    if not lines:
        return ["nothing to remove"]
    verb = "would be freed; --force removes it" if report.dry_run else "freed"
    return [*lines, f"{human_bytes(report.bytes)} {verb}"]


def _tell_pin(session: Session, key: str, *, pinned: bool, note: str) -> None:
    session.console.data({"schema": "guda.store-pin/1", "key": key, "pinned": pinned, "note": note})
    session.console.out(f"{'pinned' if pinned else 'unpinned'} {key[:SHORT]}")
