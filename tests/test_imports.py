"""Imports point one way; commands are light; nothing reaches into private parts of typer."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p.relative_to(ROOT) for top in ("guda_cli", "store") for p in (ROOT / top).rglob("*.py"))

# From the bottom to the top: each may use those before it, never those after it.
LAYERS = ("diffusion", "training", "latent", "unlearning", "attribution", "workflow", "commands")
# What single modules at the top of guda_cli may use of guda_cli. (Not listed: anything but the layers.)
LEAVES: dict[str, set[str]] = {
    "errors": set(),
    "recipe_specs": {"errors"},
    "recipe_rules": {"errors", "recipe_specs"},
    "recipe": {"errors", "recipe_rules", "recipe_specs"},
    "console": {"errors", "progress"},
    "progress": {"console"},
    "failures": {"console", "errors"},
    "recipes_lookup": {"errors", "recipe"},
    "session": {"console", "errors", "failures", "recipe", "recipes_lookup"},
    "app": {"console", "errors", "failures", "session"},
    "__main__": {"app"},
}
USES_STORE = {"session", "workflow", "commands"}
STORE_NEEDS = {"store", "numpy", "h5py", "safetensors"}
HEAVY = {
    "torch", "diffusers", "numpy", "h5py", "safetensors", "PIL", "scipy", "sklearn", "rich", "yaml", "store",
}  # fmt: skip
STARTED = [
    m for m in MODULES if m.parts[0] == "guda_cli" and ("commands" in m.parts or len(m.parts) == 2)
    and m.name not in ("recipe.py", "recipes_lookup.py")
]  # fmt: skip


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported anywhere below `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_start(tree: ast.Module) -> Iterator[str]:
    """What importing the module imports: not in functions, not under TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(node)


def parsed(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def part(name: str) -> str:
    """guda_cli.training.loop.x -> training."""
    return name.split(".")[1] if "." in name else ""


def may_use(who: str) -> set[str]:
    """Parts of guda_cli that the part `who` may import."""
    leaves = set(LEAVES) - {"app", "__main__", "session"}
    if who in LEAVES:
        return LEAVES[who] | {who}
    if who in ("data", "report"):
        return leaves | {who, "data"}
    if who in LAYERS:
        below = set(LAYERS[: LAYERS.index(who) + 1]) | leaves | {"data"}
        return below | ({"report", "session"} if who in ("workflow", "commands") else set())
    return leaves | {who}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_one_way(module: Path) -> None:
    tops = set(imported(parsed(module)))
    if module.parts[0] == "store":
        outside = {name.split(".")[0] for name in tops} - sys.stdlib_module_names - STORE_NEEDS
        assert not outside, f"store must not import {outside}"
        return
    who = module.parts[1].removesuffix(".py")
    used = {part(name) for name in tops if name.split(".")[0] == "guda_cli"} - {""}
    assert used <= may_use(who), f"{module} must not import {used - may_use(who)}"
    if any(name.split(".")[0] == "store" for name in tops):
        assert who in USES_STORE, f"{module} must not import store"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_only_the_public_typer(module: Path) -> None:
    for name in imported(parsed(module)):
        assert name.split(".")[0] != "click", "typer may have no click: use typer.*"
        assert not name.startswith("typer._")


@pytest.mark.parametrize("module", STARTED, ids=str)
def test_commands_start_light(module: Path) -> None:
    """Each import at the top of a command costs every other command its time."""
    found = {name.split(".")[0] for name in at_start(parsed(module))}
    assert not found & HEAVY
    layers = {part(n) for n in at_start(parsed(module)) if n.startswith("guda_cli.")} & set(LAYERS)
    assert not layers - {"commands"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_pickles_and_no_whole_diffusers(module: Path) -> None:
    """`import diffusers` takes seconds; the module of a class does not."""
    for name in imported(parsed(module)):
        assert name.split(".")[0] not in ("pickle", "cloudpickle", "joblib"), module
        assert name != "diffusers", module
