"""Rows that other packages add to a table of this program, by entry points, loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from guda_cli.errors import RecipeError

Row = TypeVar("Row")


@cache
def _found(group: str) -> tuple[tuple[str, str, Any], ...]:
    """(name, package, entry point) of every installed entry point of `group`, by name."""
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=group), key=lambda point: point.name)
    return tuple((point.name, point.dist.name if point.dist else "?", point) for point in points)


def installed(group: str, kind: type[Row]) -> list[Row]:
    """The rows of type `kind` that installed packages offer under `group`.

    RecipeError naming the package whose entry point cannot be loaded or is no such row.
    """
    rows = []
    for name, package, point in _found(group):
        try:
            row = point.load()
        except Exception as err:  # noqa: BLE001 - whatever another package does when it is imported
            raise RecipeError(
                f"'{name}' of the package {package} cannot be loaded",
                why=f"{type(err).__name__}: {err}",
                fix=f"pip install --upgrade {package}, or pip uninstall {package}",
            ) from None
        if not isinstance(row, kind):
            raise RecipeError(
                f"'{name}' of the package {package} is no {kind.__name__}",
                why=f"the entry point group {group} holds {kind.__name__} objects, and it is a "
                f"{type(row).__name__}",
                fix=f"pip uninstall {package}",
            )
        rows.append(row)
    return rows


def table(rows: tuple[Row, ...], group: str, name: Callable[[Row], str]) -> dict[str, Row]:
    """`rows` and those of other packages by name; of one name those of this program win."""
    offered = {name(row): row for row in installed(group, type(rows[0]))}
    return {name(row): row for row in rows} | {k: v for k, v in offered.items() if k not in map(name, rows)}


def load(where: str) -> Any:
    """What lies at `where`, "package.module:Name"."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
