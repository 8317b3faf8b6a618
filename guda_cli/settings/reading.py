"""Recipes: read from YAML into frozen dataclasses, with strict keys and `--set a.b=c` overrides.

A recipe fixes everything that decides the numbers: data, model, diffusion, training, unlearning,
scoring. Paths, devices and worker counts are not part of it.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from guda_cli import typed_number
from guda_cli.attribution import methods
from guda_cli.errors import RecipeError, unknown
from guda_cli.plain_text import shorten, unicode
from guda_cli.sections import AttributionSpec, Recipe, UnlearnSpec, to_dict
from guda_cli.settings import bounded_yaml
from guda_cli.settings.bounded_yaml import shown
from guda_cli.settings.rules import validate
from guda_cli.unlearning import catalog


def from_dict(values: dict[str, Any]) -> Recipe:
    """Build and validate a recipe; unknown keys and wrong types raise RecipeError."""
    recipe: Recipe = _build(Recipe, values, "")
    validate(recipe)
    return recipe


def parse(text: str, *, where: str = "recipe") -> dict[str, Any]:
    """YAML text to a mapping; RecipeError on bad YAML or when it is not a mapping."""
    values = bounded_yaml.load(text, where)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise RecipeError(f"{where} must be a mapping of sections", why=f"it is a {type(values).__name__}")
    return values


def apply_sets(values: dict[str, Any], sets: typing.Sequence[str]) -> dict[str, Any]:
    """`values` with every `a.b=c` of `sets` applied (c is read as YAML).

    Another `unlearn.operator` drops what was set for the one before (its weight and window).
    """
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    unlearn = values.get("unlearn")
    for item in sets:
        path, _, operator = item.partition("=")
        known = unlearn.get("operator", UnlearnSpec.operator) if isinstance(unlearn, dict) else None
        if path.strip() == "unlearn.operator" and known not in (None, operator.strip()):
            values["unlearn"] = catalog.switched(values["unlearn"], operator.strip())
    for item in sets:
        path, eq, text = item.partition("=")
        if not eq or not path.strip():
            raise RecipeError(
                f"--set {shown(item)} is not of the form section.key=value", fix="guda recipes show folder"
            )
        *sections, key = path.strip().split(".")
        here = values
        for section in sections:
            here = here.setdefault(section, {})
            if not isinstance(here, dict):
                raise RecipeError(f"--set {path}: {section} is not a section")
        here[key] = bounded_yaml.load(text, f"--set {shorten(path.strip(), 60)}: the value")
    return values


def dump(recipe: Recipe) -> str:
    """The full recipe as YAML that `guda train` reads back."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


PATHS = (("data", "path"), ("data", "prompts"), ("text", "descriptors"), ("unlearn", "anchor_encoder"))


def resolve_path(values: dict[str, Any], base: Path, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """`values` with the paths of PATHS made absolute against `base`.

    Those that `known` has the same are left as they are. So is a `data.prompts` that lies below `data.path`,
    or nowhere: it is looked for in the data. And an `unlearn.anchor_encoder` that is no folder: a hub's.
    """
    for section, key in PATHS:
        part, before = values.get(section), (known or {}).get(section)
        text = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(text, str):
            continue
        if isinstance(before, dict) and before.get(key) == text:
            continue
        own = Path(text).expanduser()
        path = own if own.is_absolute() else (base / own).resolve()
        inside = isinstance(part.get("path"), str) and Path(part["path"], own).is_file()
        if key == "prompts" and not own.is_absolute() and (inside or not path.is_file()):
            continue
        if key == "anchor_encoder" and not path.is_dir():
            continue
        values = {**values, section: {**part, key: str(path)}}
    return values


def _build(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise RecipeError(f"section {where or 'recipe'} must be a mapping")
    hints = typing.get_type_hints(cls)
    extra = _extra(where, values) if "options" in hints else {}
    hints.pop("options", None)
    for key in values:
        if key not in hints and key not in extra:
            raise RecipeError(unknown("key", str(key), [*hints, *extra], f" in {where or 'the recipe'}"))
    made: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        kind = hints[key] if key in hints else type(extra[key]) | None
        if key in hints:
            made[key] = _convert(kind, value, path)
        else:
            made["options"] = (*made.get("options", ()), (key, _convert(kind, value, path)))
    return cls(**made)


def _extra(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """What other packages' operators and methods have beside a section's fields, with its usual value.

    Of operators only the one that the recipe names: it is applied alone. One recipe serves several methods:
    they are looked at where it has an entry that is no field.
    """
    if section == "unlearn":
        found = catalog.own_settings(str(values.get("operator", UnlearnSpec.operator)))
    elif values.keys() - {f.name for f in dataclasses.fields(AttributionSpec)}:
        found = methods.own_settings()
    else:
        return {}
    return {key: setting.usual for key, setting in found.items()}


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value if value is not None else {}, path)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    value = _finite(value, path)
    if typing.get_origin(hint) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(typing.get_args(hint)[0], v, path) for v in items)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-5 as text
        number = typed_number.finite(value.strip())
        if number is not None:
            return number
    if hint is str and value is False:  # YAML reads no as false
        return "no"
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(getattr(value, "text", value))  # 007 as it was written
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        _as_written(value, path)
        return int(value)
    if hint is str and isinstance(value, str) and unicode(value) != value:
        raise RecipeError(f"{path} is not valid Unicode: {shown(value)}", why="a recipe cannot hold it")
    if isinstance(value, hint) and hint is not int:
        return value
    raise RecipeError(f"{path} must be {_TYPE_NAMES.get(hint, hint)}, not {shown(value)}")


def _as_written(value: int, path: str) -> None:
    """RecipeError where YAML reads a whole number as another than people do: `010` as 8, `1:30` as 90."""
    text = str(getattr(value, "text", value))
    if not _PLAIN.fullmatch(text):
        raise RecipeError(
            f"{path}: {shorten(text, 60)} is no plain whole number",
            why=f"YAML reads it as {value}: octal, or in sixties",
            fix=f"--set {path}={value}",
        )


_PLAIN = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)")


def _finite(value: Any, path: str) -> Any:
    """The value; RecipeError where it is a number beyond those that are reckoned with."""
    if isinstance(value, int):
        known = -_LARGEST < value < _LARGEST
    else:
        known = not isinstance(value, float) or math.isfinite(value)
    if not known:
        raise RecipeError(f"{path} must be a number within ±2⁶⁴, not {shown(value)}")
    return value


_LARGEST = 1 << 64  # seeds of other tools go so far
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
