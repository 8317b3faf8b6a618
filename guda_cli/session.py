"""What every command needs: the common options, and one `Session` made from them.

A command declares its own parameters only, and takes the session first:

    @command_options(recipe=True, device=True, dry_run=True, wait=True)
    def unlearn(session: Session, everything: Annotated[bool, typer.Option("--all")] = False) -> None:
        recipe = session.recipe()
        store = session.open_store()
        with session.console.progress("unlearn", total) as bar: ...

`command_options` puts `--store --json --quiet --verbose --all-rows --debug` (always), `--recipe --set`,
`--device`, `--dry-run`, `--no-wait`, `--jobs` (as asked) behind them, fills `session.options`, and turns
whatever the command raises into the right message and exit code. The first paragraph of the docstring is the
help.
"""

from __future__ import annotations

import atexit
import enum
import functools
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli import completions, typed_command
from guda_cli.console import Console
from guda_cli.environment import MOST_THREADS
from guda_cli.errors import CorruptError, GudaError, MissingError, RecipeError, UsageError
from guda_cli.failures import report
from guda_cli.help_pages import COMMON_PANEL
from guda_cli.plain_text import joined, printable, quoted, spelled, unspelled
from guda_cli.tables import MOST

if TYPE_CHECKING:
    from guda_cli.sections import Recipe
    from guda_cli.store import Store

DEFAULT_RECIPE = "digits"
CURRENT = "current"  # the store document naming the current recipe
STORE = ".guda"
OF_THE_STORE = ("model.registered", "model.base")  # what is set when a model is taken over, and by nobody


class Device(enum.StrEnum):
    """Where the networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


@dataclass(frozen=True)
class Options:
    """The common options as given on the command line."""

    store: Path | None = None
    recipe: str | None = None
    sets: tuple[str, ...] = ()
    device: str = "auto"
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    all_rows: bool = False
    dry_run: bool = False
    wait: bool = True
    jobs: int | None = None


class Session:
    """One run of one command: its options, console, store and recipe."""

    def __init__(self, options: Options | None = None, console: Console | None = None) -> None:
        self.options = options or Options()
        given = self.options
        self.console = console or Console(
            json=given.json, quiet=given.quiet, verbose=given.verbose, all_rows=given.all_rows
        )
        self._store: Store | None = None
        self._named: str | None = None
        self._edits_told = False

    @property
    def store_path(self) -> Path:
        """`--store`, else GUDA_STORE, else .guda here or in the nearest folder above."""
        return store_path(self.options.store)

    def open_store(self, create: bool = True) -> Store:
        """The store (opened once); without `create` a missing one raises MissingError."""
        if self._store is None:
            from guda_cli.store import Store

            if not create and not self.store_path.exists():
                raise MissingError(
                    f"there is no store at {self.store_path}",
                    why="guda train makes one; --store DIR or GUDA_STORE names another",
                    fix="guda train",
                )
            self._store = Store.open(self._place(create), create=create)
            self._store.attend()
            named = self.options.store or os.environ.get("GUDA_STORE")
            if not named and self.store_path.parent != Path.cwd():
                self.console.say(
                    f"the store of a folder above: {self.store_path} (--store {STORE}: one here)"
                )
        return self._store

    def _place(self, create: bool) -> Path:
        """The store's folder; of a dry run where there is none yet, a folder that ends with the program."""
        if self.options.dry_run and create and not self.store_path.exists():
            folder = tempfile.mkdtemp(prefix="guda-dry-run-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return Path(folder) / "store"
        return self.store_path

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe in force, with `--set` on top; see `recipe_and_source`."""
        return self.recipe_and_source(name)[0]

    def recipe_and_source(
        self, name: str | None = None, *, default_digits: bool = False
    ) -> tuple[Recipe, str]:
        """The recipe in force, with `--set` on top, and its source: a shipped name, or the path of a file.

        The path is spelled (`plain_text.spelled`), so that a document can hold it.
        `name` (an argument of the command) > `--recipe` > the store's current recipe > `digits`, the last
        only with `default_digits`.
        """
        from guda_cli.settings import lookup

        name = self._named = name or self.options.recipe
        current = None if name else self.current()
        if current:
            self._tell_edits(current)
            values = dict(current["recipe"])
            changed = self._as_typed(lambda sets: lookup.override(values, sets, Path.cwd()))
            return changed, str(current["source"])
        if not name:
            self._refuse_lost()
        if not name and not default_digits:
            raise MissingError(
                "no recipe is current in this store",
                why=f"nothing has been trained in {self.store_path} yet",
                fix="guda train",
            )
        name = name or DEFAULT_RECIPE
        chosen = name
        recipe = self._as_typed(lambda sets: lookup.load(chosen, sets, Path.cwd())[0])
        shipped = name in lookup.shipped()
        return recipe, name if shipped else spelled(str(Path(name).expanduser().resolve()))

    def _as_typed(self, make: Callable[[Sequence[str]], Recipe]) -> Recipe:
        """The recipe that `make` makes with `--set`; UsageError where it is that which is wrong with it."""
        try:
            return make(self.options.sets)
        except RecipeError as err:
            try:
                make(())
            except GudaError:
                raise err from None
            raise UsageError(err.message, why=err.why, fix=err.fix) from None

    def current(self) -> dict[str, Any] | None:
        """The store's document about the current recipe, or None (also when there is no store)."""
        from guda_cli.store import StoreMissing

        try:
            document = self.open_store(create=False).get_safe_document(CURRENT)
        except (MissingError, StoreMissing):
            return None
        known = document is not None and isinstance(document.get("recipe"), dict) and "source" in document
        return document if known else None

    def _refuse_lost(self) -> None:
        """CorruptError where models are in the store, but not which recipe they are of."""
        from guda_cli.store import StoreMissing

        try:
            store = self.open_store(create=False)
        except (MissingError, StoreMissing):
            return
        trained = [r for kind in ("train", "register") for r in store.records(kind)]
        if trained:
            commands = [command for record in trained if (command := _names_recipe(record.provenance))]
            raise CorruptError(
                f"it is not known any more which recipe {self.store_path} is about",
                why=f"documents/{CURRENT}.json and its copy are damaged or gone, but it holds trained models",
                fix=commands[-1] if commands else "guda train RECIPE",
            )

    def make_current(
        self, recipe: Recipe, source: str, groups: Sequence[str] = (), *, afresh: bool = False
    ) -> None:
        """Let later commands use `recipe` without naming it; `groups` serve shell completion.

        `afresh`: what the file at `source` says now is taken up, as where the user names it.
        """
        from guda_cli.sections import to_dict

        document: dict[str, Any] = {"recipe": to_dict(recipe), "source": source, "groups": list(groups)}
        named, before = self.options.recipe or self._named, self.current()
        goes_on = not (named or afresh) and before is not None and before["source"] == source
        said = before.get("file") if goes_on and before else _said(source)
        if said is not None:
            document["file"] = said
        store = self.open_store()
        if store.get_safe_document(CURRENT) != document:
            store.set_safe_document(CURRENT, document)

    def overrides(self) -> list[str]:
        """How the current recipe differs from what its file said: entries of `--set` that are remembered."""
        from guda_cli.settings.lookup import differences

        current = self.current()
        if not current or "file" not in current:
            return []
        changed = differences(current["file"], current["recipe"])
        return [f"{key}={new}" for key, (_, new) in changed.items() if key not in OF_THE_STORE]

    def _tell_edits(self, current: Mapping[str, Any]) -> None:
        """Warn, once, where the recipe's file says something else than when it was taken up."""
        from guda_cli.settings.lookup import differences

        source = str(current["source"])
        if self._edits_told or "file" not in current or not Path(source).is_absolute():
            return
        self._edits_told, now = True, _said(source)
        changed = differences(current["file"], now) if now else {}
        if changed:
            shown = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in list(changed.items())[:4])
            more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
            again = f"guda train {quoted(unspelled(source))}"
            self.console.warn(f"{source} was edited ({shown}{more}); what it says now counts after {again}")

    def tell_notices(self) -> None:
        """Pass on what the store noticed (quarantined objects), each once."""
        while self._store is not None and self._store.notices:
            self.console.warn(self._store.notices.pop(0))


ForceOption = Annotated[
    bool, typer.Option("--force", help="Overwrite files that guda did not write.", show_default=False)
]


def _names_recipe(provenance: Mapping[str, Any]) -> str:
    """The command that made a model, if a recipe stands in it; "" otherwise."""
    argv = provenance.get("argv")
    if not isinstance(argv, list) or argv[:1] != ["guda"] or argv[1:2] not in (["train"], ["run"]):
        return ""
    words = [unspelled(str(word)) for word in argv]
    named = words[2:3] and not words[2].startswith("-")
    return joined(words) if named or "--recipe" in words else ""


def _said(source: str) -> dict[str, Any] | None:
    """What a recipe says, as values; None where it cannot be read."""
    from guda_cli.sections import to_dict
    from guda_cli.settings import lookup

    try:
        return to_dict(lookup.load(unspelled(source))[0])
    except GudaError:
        return None


def store_path(given: Path | None) -> Path:
    """The folder of the store: as given, else GUDA_STORE, else .guda here or in the nearest folder above."""
    named = given or os.environ.get("GUDA_STORE")
    if named:
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    above = (folder / STORE for folder in (here, *here.parents))
    return next((path for path in above if (path / "format.json").is_file()), here / STORE)


def complete_recipe(incomplete: str) -> list[str]:
    """Shell completion: names of shipped recipes, and YAML files here."""

    def find() -> list[str]:
        from guda_cli.settings.lookup import shipped

        return shipped() + [str(path) for path in Path().glob("*.yaml")]

    return [name for name in completions.quietly(find) if name.startswith(incomplete)]


def complete_group(ctx: typer.Context, incomplete: str) -> list[str]:
    """Shell completion: groups of the current recipe."""
    groups = completions.quietly(lambda: list((_completing(ctx).current() or {}).get("groups", [])))
    return completions.joint(groups, incomplete)


def complete_key(ctx: typer.Context, incomplete: str) -> list[str | tuple[str, str]]:
    """Shell completion: what records are called, and the keys of those that begin so."""
    records = completions.quietly(lambda: list(_completing(ctx).open_store(create=False).records()))
    if ctx.info_name == "export":  # models alone
        records = [record for record in records if "weights" in record.outputs]
    if ctx.info_name == "unpin":
        pins = completions.quietly(lambda: list(_completing(ctx).open_store(create=False).pins()))
        records = [record for record in records if record.key in pins]
    names = {str(record.provenance.get("what", record.operation)): None for record in records}
    named: list[str | tuple[str, str]] = [
        name for name in completions.quietly(lambda: list(names)) if name.startswith(incomplete)
    ]
    keys = [record for record in records if record.key.startswith(incomplete)] if incomplete else []
    return named + [(r.key[:12], printable(r.provenance.get("what", r.operation))) for r in keys]


def _completing(ctx: typer.Context) -> Session:
    return Session(Options(store=ctx.params.get("_store"), quiet=True))


# Options for commands to use in their signatures -------------------------------------------------

RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.", autocompletion=complete_recipe
    ),
]
GroupOption = Annotated[
    list[str] | None,
    typer.Option(
        "--group", "-g", metavar="NAME", help="A group; repeat for more.", autocompletion=complete_group
    ),
]

# The common options; an underscore keeps their names apart from a command's own parameters --------


def set_debug(value: bool) -> bool:
    """Callback of `--debug`: tracebacks from here on."""
    if value:
        os.environ["GUDA_DEBUG"] = "1"
    return value


def _option(name: str, kind: Any, default: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(
        "_" + name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _common(*, recipe: bool, device: bool, dry_run: bool, wait: bool, jobs: bool) -> list[inspect.Parameter]:
    """Parameters of the common options a command asked for."""
    option = functools.partial(typer.Option, show_default=False, rich_help_panel=COMMON_PANEL)
    made = []
    if dry_run:
        text = "Show the plan that would run, and run nothing."
        made.append(_option("dry_run", bool, False, option("--dry-run", help=text)))
    if wait:
        text = "End with code 6 instead of waiting for another process that does the same work."
        made.append(_option("no_wait", bool, False, option("--no-wait", help=text)))
    if device:
        made.append(
            _option("device", Device, Device.AUTO, option("--device", help="Where networks run [auto]."))
        )
    if jobs:
        text = "Models made at once; 1: one by one [GUDA_JOBS, else by cores and memory]."
        info = option("--jobs", "-j", min=1, max=MOST_THREADS, metavar="N", help=text)
        made.append(_option("jobs", int | None, None, info))
    if recipe:
        text = "A shipped recipe or a YAML file, instead of the current one."
        info = option("--recipe", metavar="RECIPE", help=text, autocompletion=complete_recipe)
        made.append(_option("recipe", str | None, None, info))
        text = "Override one entry of the recipe; repeat for more."
        info = option("--set", metavar="KEY=VALUE", help=text, autocompletion=completions.settings)
        made.append(_option("sets", list[str] | None, None, info))
    text = "Folder of the store [GUDA_STORE, else .guda here or above]."
    made.append(_option("store", Path | None, None, option("--store", metavar="DIR", help=text)))
    made.append(_option("json", bool, False, option("--json", help="Print JSON instead of text.")))
    text = "No remarks and no progress on stderr."
    made.append(_option("quiet", bool, False, option("--quiet", "-q", help=text)))
    text = "Say on stderr what is made, what the store has, where and how long."
    made.append(_option("verbose", bool, False, option("--verbose", "-v", help=text)))
    text = f"Whole tables; else the first {MOST} rows and what went wrong."
    made.append(_option("all_rows", bool, False, option("--all-rows", help=text)))
    text = "Tracebacks for errors (also GUDA_DEBUG=1)."
    made.append(_option("debug", bool, False, option("--debug", help=text, callback=set_debug)))
    return made


def command_options(
    *,
    recipe: bool = False,
    device: bool = False,
    dry_run: bool = False,
    wait: bool = False,
    jobs: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `f(session, ...)` the common options; see the top of this module.

    A command with `dry_run` does work that an interrupt leaves resumable, and is told so.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        first, *rest = own.parameters.values()
        if first.name != "session":
            raise TypeError(f"{command.__name__}: the first parameter must be `session`")
        params = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in rest]
        params += _common(recipe=recipe, device=device, dry_run=dry_run, wait=wait, jobs=jobs)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            session = Session(_options(given))
            own_values = {p.name: given[p.name] for p in rest}
            _guarded(session, lambda: command(session, **own_values), resumable=dry_run)

        run.__signature__ = inspect.Signature(params)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in params}
        del run.__wrapped__
        return run

    return decorate


def _options(given: dict[str, Any]) -> Options:
    return Options(
        store=given["_store"],
        recipe=given.get("_recipe"),
        sets=tuple(given.get("_sets") or ()),
        device=str(given.get("_device", Device.AUTO)),
        json=given["_json"],
        quiet=given["_quiet"],
        verbose=given["_verbose"],
        all_rows=given["_all_rows"],
        dry_run=given.get("_dry_run", False),
        wait=not given.get("_no_wait", False),
        jobs=given.get("_jobs"),
    )


def _guarded(session: Session, work: Callable[[], None], *, resumable: bool) -> None:
    """Run `work`; whatever it raises becomes a message and an exit code."""
    try:
        try:
            work()
        finally:
            session.tell_notices()
            _leave_stores()
        session.console.flush()
    except (typer.Exit, typer.Abort, typer.BadParameter, SystemExit):
        raise
    except BaseException as err:  # noqa: BLE001 - the outermost frame: everything ends as a message
        if isinstance(err, GudaError):
            err.fix = typed_command.suggested(_on_same_store(err.fix, session.options.store))
        raise typer.Exit(report(err, session.console, resumable=resumable)) from None


def _leave_stores() -> None:
    """Tell garbage collection that this command uses nothing any more."""
    held = sys.modules.get("guda_cli.store.held")
    if held is not None:
        held.release_all()


def _on_same_store(fix: str, store: Path | None) -> str:
    """A suggested command with the `--store` that was given, so that it can be pasted as it is."""
    command = fix.startswith("guda ") and not fix.startswith("guda recipes ")
    given = f" --store {quoted(str(store))}"
    return (fix + given).replace(" && guda ", f"{given} && guda ") if store and command else fix
