"""Rows that other packages add to a table of this program, by entry points, loaded when they are named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from guda_cli.errors import RecipeError
from guda_cli.light_imports import light_import

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Named(Protocol):
    """A row of a table."""

    @property
    def name(self) -> str:
        """What it is called, as the entry point that leads to it."""


Row = TypeVar("Row", bound=Named)


@cache
def _entries(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of `group` by name; of several with one name the first."""
    from importlib.metadata import entry_points  # here: it takes longer than all else in this module

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry)
    return found


@cache
def _loaded(group: str, name: str) -> Any:
    return _entries(group)[name].load()


def names(group: str, own: Collection[str]) -> list[str]:
    """The program's `own` names, then those that other packages add; no package is imported for it."""
    return [*own, *(name for name in sorted(_entries(group)) if name not in own)]


def find(group: str, name: str, kind: type[Row]) -> Row | None:
    """The row of type `kind` that a package offers as `name`; None if no package does.

    RecipeError naming the package whose entry point cannot be loaded or is no such row.
    """
    if name not in _entries(group):
        return None
    try:
        row = _loaded(group, name)
    except Exception as err:
        raise unusable(group, name, f"{type(err).__name__}: {err}") from err
    if not isinstance(row, kind):
        raise unusable(group, name, f"its entry point leads to a {type(row).__name__}, not a {kind.__name__}")
    if row.name != name:
        raise unusable(group, name, f"its row is named '{row.name}'")
    return row


def at(where: str) -> Any:
    """What lies at `where`, "package.module:Name"."""
    module, _, name = where.partition(":")
    return getattr(light_import(module), name)


def load(group: str, name: str, where: str, kind: type[Any]) -> Any:
    """The class at `where`, "package.module:Name", that the row `name` of `group` names.

    RecipeError naming the package if it cannot be imported or is no `kind`; what the program's own row names
    raises as it is.
    """
    try:
        found = at(where)
    except Exception as err:
        if name not in _entries(group):
            raise
        raise unusable(group, name, f"{where}: {type(err).__name__}: {err}") from err
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise unusable(group, name, f"{where} is no {kind.__name__}")
    return found


def unusable(group: str, name: str, why: str) -> Exception:
    """What to raise for a row that cannot be used: TypeError for the program's own."""
    entry = _entries(group).get(name)
    if entry is None:
        return TypeError(f"'{name}' of {group}: {why}")
    package = entry.dist.name if entry.dist else entry.value
    return RecipeError(
        f"'{name}' of the package {package} cannot be used",
        why=why,
        fix=f"pip install --upgrade {package}",
    )


def forget() -> None:
    """Look anew for what is installed."""
    _entries.cache_clear()
    _loaded.cache_clear()
