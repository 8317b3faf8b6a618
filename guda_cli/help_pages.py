"""How the help of commands is drawn: options in groups, each with its default, and examples that run."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from guda_cli import typed_command
from guda_cli.console import is_terminal, width_of
from guda_cli.errors import UsageError
from guda_cli.plain_text import printable

MOST_COLUMNS, FEWEST_COLUMNS, PLAIN_COLUMNS = 100, 40, 80
COMMON_PANEL = "Common options"
_NAMES = 26  # columns of the names of options, where there is room
_LARGEST = (1 << 64) - 1  # of a number: seeds of other tools go so far
_KINDS = {int: "N", float: "X", str: "TEXT"}

# By the words of a command; `tests/cli/test_help.py` parses each of them.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("guda init pictures", "guda init pictures.zip --minutes 60 --out mine.yaml --yes"),
    "run": ("guda run", "guda run mine.yaml -n 64 --strict", "guda run --dry-run"),
    "train": ("guda train digits", "guda train mine.yaml --set train.epochs=20 --dry-run"),
    "unlearn": ("guda unlearn --all", "guda unlearn --group van-gogh --operator neggrad"),
    "sample": ("guda sample -n 16 --out queries", "guda sample --without van-gogh --out without"),
    "score": (
        "guda score image.png --top 3",
        "guda score generated --json > scores.jsonl",
        "guda score queries --method guda,similarity",
        "guda score image.png --map map.png",
    ),
    "tune": ("guda tune --trials 6 --out tuned.yaml", "guda tune queries --group van-gogh"),
    "check": ("guda check", "guda check --group van-gogh -n 32"),
    "report": (
        "guda report --html report.html",
        "guda report queries --csv > scores.csv",
        "guda report --against logo --weighting min-snr:5,elbo",
    ),
    "view": ("guda view", "guda view --port 8000 --no-open --idle 30"),
    "status": ("guda status", "guda status --logo --json"),
    "groups": ("guda groups", "guda groups --sort check --csv > groups.csv"),
    "data ls": ("guda data ls",),
    "data get": ("guda data get fashion-mnist",),
    "doctor": ("guda doctor --full",),
    "recipes ls": ("guda recipes ls",),
    "recipes show": ("guda recipes show folder > my.yaml",),
    "store ls": ("guda store ls unlearn",),
    "store show": ("guda store show 'full model'",),
    "store verify": ("guda store verify",),
    "store gc": ("guda store gc", "guda store gc --force"),
    "store pin": ("guda store pin 'full model' --note 'of the paper'",),
    "store unpin": ("guda store unpin 'full model'",),
    "store export": ("guda store export 'full model' exported",),
}

# Headings of the options of commands that have many; what is not named here stands under `Options`.
PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "score": {
        "Which groups, by which models": (
            "--method", "--operator", "--group", "--seeds", "--top", "--rank", "--instances", "--shares",
        ),
        "How scores are estimated": (
            "--weighting", "--grid", "--timesteps", "--draws", "--seed", "--until", "--encoder",
            "--aggregate",
        ),
        "What the images were drawn with": ("--class", "--prompt", "--prompts"),
        "What is written, what is read": ("--map", "--csv", "--force", "--import", "--name"),
    },
    "report": {
        "What is written": ("--html", "--csv", "--latex", "--force", "--top", "--instances"),
        "Which scores": (
            "--method", "--weighting", "--grid", "--timesteps", "--draws", "--seed", "--rank", "--aggregate",
        ),
        "Against the oracle": ("--against", "--center", "--seeds"),
        "Pictures drawn again": (
            "--gallery", "--gallery-images", "--gallery-top", "--regeneration", "--regeneration-top",
            "--regeneration-by",
        ),
    },
    "unlearn": {
        "Which groups": ("--group", "--all", "--null", "--coalitions"),
        "How": ("--operator", "--params", "--steps", "--lr", "--guard", "--seeds"),
    },
    "train": {
        "Models without groups": (
            "--without", "--each-group", "--null", "--seeds", "--subsets", "--subset-seed",
        ),
        "A model of yours": ("--from", "--as-is", "--base", "--scheduler"),
    },
    "sample": {
        "How it is drawn": ("--sampler", "--steps", "--seed", "--class", "--prompt", "--guidance"),
        "By which model": ("--without", "--method"),
    },
    "tune": {
        "What is tried": ("--operator", "--trials", "--space", "--seed"),
        "On what it is judged": ("--group", "--held-out", "-n", "--seeds", "--weighting"),
    },
}  # fmt: skip


class _Page:
    """What commands and groups of commands share: the page of help that each prints."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usage, what it does, options in groups, examples."""
        formatter.width = _width()
        command: Any = self
        pieces = [piece.strip("{}") for piece in command.collect_usage_pieces(ctx)]
        formatter.write_usage(ctx.command_path, " ".join(pieces))
        command.format_help_text(ctx, formatter)
        command.format_options(ctx, formatter)
        command.format_epilog(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options under their headings, those of all commands last."""
        command: Any = self
        chosen = PANELS.get(_words(ctx), {})
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        panels |= {name: [] for name in (*chosen, COMMON_PANEL)}
        for param in command.get_params(ctx):
            if getattr(param, "hidden", False):
                continue
            argument = param.param_type_name == "argument"
            name = "Arguments" if argument else _panel(param, ctx, chosen)
            panels[name].append((_names(param, argument), _help(param)))
        for name, entries in panels.items():
            if entries:
                formatter.write("\n" + "\n".join(section(name, entries, formatter.width)) + "\n")
        if isinstance(self, TyperGroup):
            command.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, each on a line that can be copied."""
        command: Any = self
        words = _words(ctx)
        lines = EXAMPLES.get(words) or tuple(filter(None, [command.epilog]))
        if lines:
            head = "Example:" if len(lines) == 1 else "Examples:"
            head = head if words else "Start with:"
            formatter.write("\n" + "\n".join([head, *(f"  {line}" for line in lines)]) + "\n")


class HelpedCommand(_Page, TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, but numbers are finite; what was typed is remembered, for errors that suggest another."""
        typed_command.remember(ctx.command_path, args)
        rest = super().parse_args(ctx, args)
        for param in () if ctx.resilient_parsing else self.get_params(ctx):
            value = ctx.params.get(param.name or "")
            endless = isinstance(value, float) and not math.isfinite(value)
            if endless or (isinstance(value, int) and abs(value) > _LARGEST):
                raise UsageError(
                    f"invalid value for '{max(param.opts, key=len)}': it must lie within ±2⁶⁴",
                    fix=f"{ctx.command_path} --help",
                )
        return rest


class HelpedGroup(_Page, TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Every command with the first sentence of its help, whole."""
        entries = [(name, command.get_short_help_str(1000)) for name, command in self.commands.items()]
        formatter.write("\n" + "\n".join(section("Commands", entries, formatter.width)) + "\n")


def _words(ctx: Any) -> str:
    """`store ls` of `guda store ls`."""
    return " ".join(ctx.command_path.split()[1:])


def _panel(param: Any, ctx: Any, chosen: dict[str, tuple[str, ...]]) -> str:
    for name, options in chosen.items():
        if any(option in options for option in param.opts):
            return name
    common = param.name in ("help", "debug") and ctx.parent
    return COMMON_PANEL if common else getattr(param, "rich_help_panel", None) or "Options"


def _width() -> int:
    """Columns of the page: the terminal's within reason, 80 in a file or a pipe."""
    here = width_of(sys.stdout)
    piped = not is_terminal(sys.stdout) and here > MOST_COLUMNS
    return PLAIN_COLUMNS if piped else min(max(here, FEWEST_COLUMNS), MOST_COLUMNS)


def section(name: str, entries: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """A heading, and names with their texts: beside them, or below where there is little room."""
    column = min(_NAMES, max(len(names) for names, _ in entries)) + 4 if width >= 60 else 6
    yield f"{name}:"
    for said, text in entries:
        names = printable(said)
        lines = textwrap.wrap(printable(text), width - column, break_long_words=False, break_on_hyphens=False)
        if width >= 60 and len(names) + 4 <= column and lines:
            yield f"  {names:<{column - 2}}{lines.pop(0)}"
        else:
            yield f"  {names}"
        yield from (" " * column + line for line in lines)


def _names(param: Any, argument: bool) -> str:
    """`-k, --top N`; of arguments what they are called."""
    kind = param.metavar or _kind(param)
    if argument:
        return kind if param.nargs == 1 else f"{kind} ..."
    names = "/".join(filter(None, [", ".join(_short_first(param.opts)), ", ".join(param.secondary_opts)]))
    return names if param.is_flag else f"{names} {kind}"


def _short_first(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: name.startswith("--"))


def _kind(param: Any) -> str:
    """What the value of an option is, in a word."""
    told = getattr(param, "type_descriptor", None)
    choices = getattr(told, "choices", None)
    if choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    return _KINDS.get(getattr(told, "annotation", None) or str, "PATH")


def _help(param: Any) -> str:
    """Its text, with the default in brackets unless the text says one."""
    text = str(getattr(param, "help", None) or "")
    default = getattr(param, "default", None)
    shown = getattr(param, "show_default", False)
    if param.required:
        note = "required"
    elif shown and default not in (None, "", 0, False, True, [], ()) and "[" not in text:
        note = str(getattr(default, "value", default)).removesuffix(".0")
    else:
        return text
    return f"{text.removesuffix('.')} [{note}]."
