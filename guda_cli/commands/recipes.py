"""`guda recipes ls|show`: the recipes that come with the program."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from guda_cli.session import Session, command_options

app = typer.Typer(
    name="recipes", help="List and show the shipped recipes.", add_completion=False, rich_markup_mode=None
)


def _complete(incomplete: str) -> list[str]:
    from guda_cli.settings.lookup import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


@app.callback()
def _group() -> None:
    """List and show the shipped recipes."""


@app.command("ls")
@command_options()
def list_recipes(session: Session) -> None:
    """List the shipped recipes."""
    from guda_cli.settings.lookup import shipped

    rows = [_summary(name) for name in shipped()]
    session.console.data({"schema": "guda.recipes/1", "recipes": rows})
    if not session.console.json:
        cells = [
            (r["name"], f"{r['size']}x{r['size']}x{r['channels']}", _start(r), r["description"]) for r in rows
        ]
        session.console.out(session.console.table(("recipe", "images", "data", "description"), cells))
        session.console.out("here: guda train RECIPE starts at once; get NAME: guda data get NAME first")


@app.command("show")
@command_options()
def show_recipe(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a shipped recipe.", autocompletion=_complete)
    ],
) -> None:
    """Print a shipped recipe as YAML, comments included: guda recipes show folder > my.yaml."""
    from guda_cli.sections import to_dict
    from guda_cli.settings.lookup import load, shipped_text

    text = shipped_text(name)
    if session.console.json:
        recipe = to_dict(load(name)[0])
        document = {"schema": "guda.recipe/1", "name": name, "recipe": recipe, "text": text}
        session.console.data(document)
    else:
        sys.stdout.write(text)


def _summary(name: str) -> dict[str, Any]:
    from guda_cli.data.known_sets import is_there, of_recipe
    from guda_cli.settings.lookup import shipped_text
    from guda_cli.settings.reading import from_dict, parse

    recipe = from_dict(parse(shipped_text(name)))
    known = of_recipe(name)
    return {
        "name": name,
        "description": recipe.description,
        "size": recipe.data.size,
        "channels": recipe.data.channels,
        "source": recipe.data.source,
        "needs_path": recipe.data.source != "digits" and recipe.data.path is None,
        "data_here": is_there(recipe.data),
        "data_set": known.name if known else None,
    }


def _start(row: dict[str, Any]) -> str:
    """Where the images of a recipe come from."""
    if row["data_here"]:
        return "here"
    return f"get {row['data_set']}" if row["data_set"] else "your own"
