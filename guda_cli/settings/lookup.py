"""Finding recipes: the shipped ones by name, a user's own by path."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from guda_cli.errors import RecipeError, unknown
from guda_cli.plain_text import quoted, unicode
from guda_cli.sections import Recipe
from guda_cli.settings import reading as recipes
from guda_cli.settings.bounded_yaml import LARGEST

ORDER = (
    "digits",
    "digits-class",
    "fashion-mnist",
    "cifar10-small",
    "emoji-styles",
    "cifar10-gpu",
    "cifar10",
    "folder",
    "paintings",
    "unlearncanvas-sd15",
    "sdxl-lora",
    "flux-lora",
    "qwen-image-lora",
)


def shipped() -> list[str]:
    """Names of the recipes that come with the program, the easiest first."""
    names = [
        entry.name.removesuffix(".yaml")
        for entry in resources.files("guda_cli").joinpath("recipes").iterdir()
        if entry.name.endswith(".yaml")
    ]
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def shipped_text(name: str) -> str:
    """The YAML text of a shipped recipe, comments included; RecipeError names the nearest."""
    known = shipped()
    if name not in known:
        raise RecipeError(unknown("recipe", name, known), fix="guda recipes ls")
    return resources.files("guda_cli").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8")


def load(name_or_path: str, sets: Sequence[str] = (), cwd: Path | None = None) -> tuple[Recipe, str]:
    """The recipe called or lying at `name_or_path`, with `--set` overrides, and its YAML text.

    A relative `data.path` counts from the recipe file's folder; in a shipped recipe and in
    `--set data.path=...` it counts from `cwd`.
    """
    cwd = cwd or Path.cwd()
    text, base = _read(name_or_path, cwd)
    values = recipes.parse(text, where=f"recipe {name_or_path}")
    values.setdefault("name", unicode(Path(name_or_path).name).removesuffix(".yaml").removesuffix(".yml"))
    return override(recipes.resolve_path(values, base or cwd), sets, cwd), text


def override(values: dict[str, Any], sets: Sequence[str], cwd: Path) -> Recipe:
    """A recipe from `values` with the `--set` overrides on top."""
    changed = recipes.apply_sets(values, sets)
    return recipes.from_dict(recipes.resolve_path(changed, cwd, known=values))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings in which two recipes' values differ, as `section.key`, with the old value and the new one."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name), new.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= {f"{name}.{key}": pair for key, pair in differences(one, other).items()}
        elif one != other:
            found[name] = (one, other)
    return found


def _read(name_or_path: str, cwd: Path) -> tuple[str, Path | None]:
    """The text, and the folder of a user's file (None for a shipped recipe)."""
    path = cwd / Path(name_or_path).expanduser()
    looks_like_path = path.suffix in (".yaml", ".yml") or "/" in name_or_path or "\\" in name_or_path
    if path.is_dir() and (looks_like_path or name_or_path not in shipped()):
        raise RecipeError(
            f"{name_or_path} is a folder, not a recipe",
            why="a recipe says how its images are grouped, and which model is trained on them",
            fix=f"guda init {quoted(name_or_path)}",
        )
    if not looks_like_path:
        return shipped_text(name_or_path), None
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise RecipeError(f"{name_or_path} is no recipe", why=f"it is larger than {LARGEST >> 20} MB")
        # PowerShell writes what a command prints as UTF-16.
        utf16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        return data.decode("utf-16" if utf16 else "utf-8"), path.parent
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {name_or_path} is not text", why="it is not UTF-8") from None
    except OSError as err:
        raise RecipeError(
            f"cannot read recipe {name_or_path}",
            why=err.strerror or str(err),
            fix="guda recipes ls",
        ) from None
