"""What errors say to try: whatever looks like a command is one, with options that there are."""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from guda_cli import app
from guda_cli.typed_command import remember, suggested

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for top in ("guda_cli", "guda", "store") for p in (ROOT / top).rglob("*.py"))
PROGRAMS = ("guda", "pip", "unset", "accelerate")


def texts(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """What an expression may say; `1` in place of what is filled in."""
    if isinstance(node, ast.Constant):
        yield str(node.value or "")
    elif isinstance(node, ast.JoinedStr):
        parts = [str(p.value) if isinstance(p, ast.Constant) else "1" for p in node.values]
        yield "".join(parts)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, constants)
        yield from texts(node.orelse, constants)
    elif isinstance(node, ast.BinOp):
        yield from (a + b for a in texts(node.left, constants) for b in texts(node.right, constants))
    elif isinstance(node, ast.Name) and node.id in constants:
        yield from texts(constants[node.id], constants)
    elif isinstance(node, ast.Call):
        yield "1"


def fixes() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for word in node.keywords:
                    if word.arg == "fix":
                        where = f"{path.relative_to(ROOT)}:{node.lineno}"
                        yield from ((where, text) for text in texts(word.value, constants) if text)


FIXES = list(fixes())
COMMANDS = [fix for fix in FIXES if fix[1].startswith("guda ")]
OPTIONS = [fix for fix in FIXES if fix[1].startswith("-")]


def parse(words: list[str]) -> None:
    """Parse a command line of guda; run nothing."""
    if words[0].startswith("-"):
        assert words == ["--help"]
        return
    command, rest = app._build(words[0]), words[1:]
    if hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    with contextlib.suppress(typer.Exit):  # of --help
        command.make_context("guda", rest)


def every_option() -> set[str]:
    found = set()
    for name in app.COMMANDS:
        command = app._build(name)
        for each in getattr(command, "commands", {"": command}).values():
            found |= {option for param in each.params for option in (*param.opts, *param.secondary_opts)}
    return found


def test_there_are_some() -> None:
    assert len(COMMANDS) > 25
    assert len(OPTIONS) > 30


@pytest.mark.parametrize(("where", "fix"), COMMANDS, ids=lambda text: text if text[:1] != "g" else "")
def test_commands_parse(where: str, fix: str) -> None:
    for part in fix.split(" && "):
        program, *words = shlex.split(part.partition(" >")[0])
        assert program in PROGRAMS
        if program == "guda":
            parse([word if word not in ("IMAGE", "IMAGES") else "x.png" for word in words])


@pytest.mark.parametrize(("where", "fix"), OPTIONS, ids=lambda text: text if text[:1] != "-" else "")
def test_options_are_options_and_nothing_else(where: str, fix: str) -> None:
    known, words = every_option(), shlex.split(fix)
    for before, word in zip(["", *words], words, strict=False):
        assert word in known or before in known, f"{where}: {word!r} of {fix!r}"
        assert not word.endswith((",", ";"))


@pytest.mark.parametrize("fix", sorted({text for _, text in FIXES}))
def test_prose_begins_with_no_program(fix: str) -> None:
    assert not fix.startswith("`")
    if fix.split()[0] == "pip":
        assert re.fullmatch(r"pip install (--upgrade )?('?[\w\[\]-]+'?|1)", fix)


def test_an_option_becomes_the_whole_command() -> None:
    remember("guda score", ["q x", "--map", "a.png", "--set", "a.b=1", "--set=c.d=2"])
    assert suggested("--map FOLDER") == "guda score 'q x' --set a.b=1 --set=c.d=2 --map FOLDER"
    assert suggested("--set c.d=3") == "guda score 'q x' --map a.png --set a.b=1 --set c.d=3"
    remember("guda unlearn", ["--all", "--params", "lora:0"])
    assert suggested("--set unlearn.params=lora:4") == "guda unlearn --all --set unlearn.params=lora:4"
    assert suggested("download it again") == "download it again"
    remember("guda score", [f"{i}.png" for i in range(99)])
    assert suggested("--map FOLDER") == "--map FOLDER"
