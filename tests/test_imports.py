"""Imports point one way; commands are light; nothing reaches into private parts of typer."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    p.relative_to(ROOT) for top in ("guda_cli", "guda", "store") for p in (ROOT / top).rglob("*.py")
)

# From the bottom to the top: each may use those before it, never those after it.
LAYERS = (
    "data", "diffusion", "training", "checkpoints", "latent", "families", "unlearning", "attribution",
    "settings", "workflow", "view", "commands",
)  # fmt: skip
# The rooms of workflow, likewise.
ROOMS = ("keys", "project", "models", "scoring", "judging", "reporting", "starting")
# What single modules at the top of guda_cli may use of guda_cli. (Not listed: anything but the layers.)
LEAVES: dict[str, set[str]] = {
    "errors": set(),
    "phrases": set(),
    "jsonable": {"plain_text"},
    "intervals": set(),
    "memory": {"errors", "phrases"},
    "processors": set(),
    "typed_number": set(),
    "sections": {"errors", "typed_number"},
    "light_imports": set(),
    "plugins": {"errors", "light_imports"},
    "plain_text": set(),
    "git_lfs": set(),
    "environment": {"errors", "plain_text", "typed_number"},
    "wanted_file": set(),
    "download": {"errors", "phrases", "typed_number", "wanted_file"},
    "outfile": {"errors", "plain_text"},
    "time_left": set(),
    "tables": {"phrases", "plain_text"},
    "standard_streams": {"errors", "plain_text"},
    "console": {
        "errors", "jsonable", "phrases", "plain_text", "standard_streams", "tables", "time_left",
        "typed_number",
    },
    "failures": {"console", "errors", "memory", "plain_text", "standard_streams"},
    "typed_command": {"plain_text"},
    "help_pages": {"console", "errors", "plain_text", "typed_command"},
    # Of attribution and unlearning the tables of names alone.
    "completions": {"attribution", "plain_text", "sections", "typed_number", "unlearning"},
    "session": {
        "completions", "console", "environment", "errors", "failures", "help_pages", "plain_text", "sections",
        "settings", "tables", "typed_command",
    },
    "app": {
        "completions", "console", "errors", "failures", "help_pages", "session", "standard_streams",
    },
    "start": {"app", "view"},
    "__main__": {"start"},
}  # fmt: skip
# Tables that the help of commands is made of; they import nothing heavy.
ROWS = ("guda_cli.unlearning.catalog", "guda_cli.attribution.methods", "guda_cli.diffusion.weighting")
USES_STORE = {"session", "workflow", "view", "commands"}
STORE_NEEDS = {"numpy", "h5py", "safetensors"}
HEAVY = {
    "torch", "diffusers", "numpy", "h5py", "safetensors", "PIL", "scipy", "sklearn", "rich", "yaml",
}  # fmt: skip
STARTED = [
    m for m in MODULES if m.parts[0] == "guda_cli" and ("commands" in m.parts or len(m.parts) == 2)
]  # fmt: skip


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported anywhere below `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def for_types(tree: ast.Module) -> Iterator[str]:
    """What is imported under TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imported(node)


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
    leaves = set(LEAVES) - {"app", "start", "__main__", "session"}
    if who == "__init__":
        return set()
    if who in LEAVES:
        return LEAVES[who] | {who}
    if who == "report":
        return leaves | {who, "data"}
    below = set(LAYERS[: LAYERS.index(who) + 1]) | leaves
    beside = {"workflow": {"report"}, "view": {"report", "session"}, "commands": {"report", "session"}}
    return below | beside.get(who, set())


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_one_way(module: Path) -> None:
    tops = set(imported(parsed(module)))
    if module.parts[0] == "store":
        outside = {name.split(".")[0] for name in tops if not name.startswith("guda_cli.store")}
        outside -= sys.stdlib_module_names | STORE_NEEDS
        assert not outside, f"store must not import {outside}"
        return
    if module.parts[0] == "guda":  # Python's door beside the commands: it says what they say, with less
        assert not [name for name in tops if name.startswith("guda_cli.commands")]
        assert not {name.split(".")[0] for name in at_start(parsed(module))} & HEAVY
        return
    who = module.parts[1].removesuffix(".py")
    used = {part(name) for name in tops if name.split(".")[0] == "guda_cli"} - {""}
    assert "store" not in used or who in USES_STORE, f"{module} must not import guda_cli.store"
    used.discard("store")
    assert used <= may_use(who), f"{module} must not import {used - may_use(who)}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[1] == "workflow"], ids=str)
def test_the_rooms_of_workflow_have_one_order(module: Path) -> None:
    if len(module.parts) < 4:
        return
    own = ROOMS.index(module.parts[2])
    names = [name.split(".") for name in imported(parsed(module)) if name.startswith("guda_cli.workflow.")]
    above = {name[2] for name in names} - set(ROOMS[: own + 1])
    assert not above, f"{module} must not import {above}"


def test_there_are_no_circles() -> None:
    """Imports inside functions count too, those for type checkers alone do not."""
    names = {}
    for module in MODULES:
        name = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
        names[f"guda_cli.{name}" if module.parts[0] == "store" else name] = module
    arrows = {
        name: {
            target
            for said in set(imported(parsed(module))) - set(for_types(parsed(module)))
            for target in [said if said in names else said.rpartition(".")[0]]
            if target in names and target != name
        }
        for name, module in names.items()
    }
    while leaves := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"these lead back to themselves: {sorted(arrows)}"


def test_no_two_names_are_nearly_one() -> None:
    """A module's name tells it from all others; those of commands and `guda.api` are the users'."""
    own = [p for p in MODULES if "commands" not in p.parts and p.parts[0] != "guda"]
    rooms = {name for p in own for name in (p.parent.name, p.stem)}
    names = sorted(rooms - {"__init__", "__main__"})
    near = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if differs_by_a_letter(a, b)]
    assert not near


def test_no_name_is_shared_by_three() -> None:
    folders = {p.parent for p in MODULES}
    places = [p.stem for p in MODULES if p.stem not in ("__init__", "__main__")] + [f.name for f in folders]
    shared = {name: places.count(name) for name in places if places.count(name) > 2}
    assert not shared


def differs_by_a_letter(a: str, b: str) -> bool:
    """Whether one letter changed, added or dropped makes one word of the other."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1 or a == b:
        return False
    if len(a) == len(b):
        return sum(x != y for x, y in zip(a, b, strict=True)) == 1
    return any(b[:i] + b[i + 1 :] == a for i in range(len(b)))


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
    names = [n for n in at_start(parsed(module)) if n.startswith("guda_cli.") and not n.startswith(ROWS)]
    layers = {part(n) for n in names} & {*LAYERS, "store"}
    assert not layers - {"commands"}


@pytest.mark.parametrize("name", ROWS)
def test_tables_are_light(name: str) -> None:
    started = list(at_start(parsed(Path(*name.split(".")).with_suffix(".py"))))
    assert not {n.split(".")[0] for n in started} & HEAVY
    own = {part(n) for n in started if n.startswith("guda_cli.")}
    assert own <= {*LEAVES, "families", "attribution", "unlearning"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_pickles_and_no_whole_diffusers(module: Path) -> None:
    """`import diffusers` takes seconds; the module of a class does not."""
    for name in imported(parsed(module)):
        assert name.split(".")[0] not in ("pickle", "cloudpickle", "joblib"), module
        assert name != "diffusers", module
