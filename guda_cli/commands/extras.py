"""What `guda doctor` says of optional packages: which are there, and which the recipe needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from guda_cli.commands.findings import Check

if TYPE_CHECKING:
    from guda_cli.sections import Recipe

DEVELOPERS = ("dev", "test")  # extras that no command needs
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w.,\s-]+)\])?[^;]*(?:;.*extra\s*==\s*['\"]([\w.-]+)['\"])?")


def packages() -> dict[str, set[str]]:
    """The packages that each extra brings, from guda's own metadata; none where it is not installed."""
    from importlib import metadata

    try:
        lines = metadata.requires("guda") or []
    except metadata.PackageNotFoundError:
        return {}
    return parsed(lines)


def parsed(lines: list[str]) -> dict[str, set[str]]:
    """The same from lines such as `peft>=0.13; extra == "lora"`, extras of extras resolved."""
    direct: dict[str, set[str]] = {}
    others: dict[str, set[str]] = {}
    for line in lines:
        found = _REQUIREMENT.match(line)
        if not found or not found[3]:
            continue
        name, nested, extra = found.groups()
        direct.setdefault(extra, set())
        if name == "guda":
            others.setdefault(extra, set()).update(part.strip() for part in nested.split(","))
        else:
            direct[extra].add(name)

    def all_of(extra: str, above: tuple[str, ...] = ()) -> set[str]:
        below = [part for part in others.get(extra, ()) if part not in above]
        return direct.get(extra, set()).union(*(all_of(part, (*above, extra)) for part in below))

    return {extra: all_of(extra) for extra in direct if extra not in DEVELOPERS}


def needed(recipe: Recipe) -> dict[str, str]:
    """The extras that a recipe needs, each with what needs it."""
    from guda_cli.families.known import family_of

    found = {}
    family = family_of(recipe)
    if family.extra:
        found[family.extra] = "text-to-image models" if family.prompts else f"models of {family.name}"
    for where, params in (("train.params", recipe.train.params), ("unlearn.params", recipe.unlearn.params)):
        if params.startswith("lora"):
            found["lora"] = f"{where}: {params}"
    for where, encoder in (
        ("unlearn.anchor_encoder", recipe.unlearn.anchor_encoder),
        ("attribution.encoder", recipe.attribution.encoder),
    ):
        if encoder not in (None, "pixels"):
            found["encoders"] = f"{where}: {encoder}"
    return found


def checks(recipe: Recipe | None) -> Iterator[Check]:
    """Which extras are there, and a failure for each that the recipe needs and that is not."""
    known = packages()
    lacking = {extra: gone for extra, parts in known.items() if (gone := sorted(filter(_lacks, parts)))}
    if known:
        there = [extra for extra in known if extra not in lacking]
        said = [f"{', '.join(there)} installed"] if there else []
        said += [f"{', '.join(lacking)} not (pip install 'guda[NAME]')"] if lacking else []
        yield Check("extras", "ok", "; ".join(said))
    for extra, why in (needed(recipe) if recipe else {}).items():
        if extra in lacking:
            detail = f"{why} need {', '.join(lacking[extra])}, not installed"
            yield Check(f"extra {extra}", "fail", detail, f"pip install 'guda[{extra}]'")


def _lacks(package: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return True
    return False


def avif() -> Check:
    """Whether AVIF images can be read."""
    from PIL import features

    if features.check("avif"):
        return Check("AVIF", "ok", "images in AVIF can be read")
    return Check("AVIF", "ok", "images in AVIF cannot be read", "pip install 'pillow>=11.3'")
