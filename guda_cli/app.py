"""The root of the command line: finds commands, imports only the one that runs, ends with its code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer

from guda_cli import completions, failures, standard_streams
from guda_cli.console import Console
from guda_cli.errors import UsageError, nearest
from guda_cli.help_pages import HelpedCommand, HelpedGroup, section

# Every command is guda_cli/commands/<name>.py, which has a function <name>, or an `app` of sub-commands.
COMMANDS = {
    "init": "Look at a folder of images and write a recipe for it.",
    "run": "Train, unlearn, sample, score and report, all in one.",
    "train": "Train the full model, or models without a group; make a recipe current.",
    "unlearn": "Unlearn groups from the full model.",
    "sample": "Draw images from a model.",
    "score": "Rank the groups an image is owed to.",
    "tune": "Choose unlearning settings by the oracle of a few held-out groups.",
    "check": "Show checks of unlearned models, and how far they are from retrained ones.",
    "report": "Put scores, checks and costs into a table, a CSV or an HTML file.",
    "view": "Serve pages on this machine: drop in a picture, browse the store; speeds up guda score.",
    "status": "Show what the current recipe has and lacks, and what that would cost.",
    "groups": "List the groups of the data, and what there is of each.",
    "doctor": "Check the installation, the store and the data.",
    "data": "List and fetch the data sets of the shipped recipes.",
    "recipes": "List and show the shipped recipes.",
    "store": "Look into the store; verify it, clean it, export from it.",
}
EPILOG = "guda init pictures && guda run"


class LazyGroup(HelpedGroup):
    """A group whose commands are imported when they run; its help needs none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and build the command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _build(cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands in `guda --help`, from their one-line texts alone."""
        formatter.write("\n" + "\n".join(section("Commands", list(COMMANDS.items()), formatter.width)) + "\n")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As usual, but an unknown name is answered with the nearest known one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            guess = nearest(name, COMMANDS)
            hint = f"did you mean '{guess}'?" if guess else "known: " + ", ".join(COMMANDS)
            raise UsageError(f"unknown command '{name}'; {hint}", fix="guda --help")
        return super().resolve_command(ctx, args)


def _build(name: str) -> Any:
    module = importlib.import_module(f"guda_cli.commands.{name}")
    sub = getattr(module, "app", None)
    if sub is None:
        sub = typer.Typer(add_completion=False, rich_markup_mode=None)
        sub.command(name, short_help=COMMANDS[name])(getattr(module, name))
    sub.info.cls = HelpedGroup
    for info in sub.registered_commands:
        info.cls = HelpedCommand
    command = typer.main.get_command(sub)
    command.name = name
    return command


app = typer.Typer(
    name="guda",
    cls=LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"guda {version('guda')}")
        raise typer.Exit


def _debug(value: bool) -> None:
    from guda_cli.session import set_debug

    set_debug(value)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Tracebacks for errors (also GUDA_DEBUG=1).", callback=_debug)
    ] = False,
) -> None:
    """Which groups of its training data is a generated image owed to?

    guda trains a diffusion model, unlearns one group at a time from it, and ranks the groups by how much
    worse the model explains an image without each.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    args = _as_options(args)
    console = Console(json="--json" in args)
    try:
        result = typer.main.get_command(app).main(args=args, prog_name="guda", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Abort:
        return failures.report(KeyboardInterrupt(), console)
    except Exception as err:  # noqa: BLE001 - usage errors, and bugs outside of any command
        return failures.report(_usage(err) or err, console)


def _as_options(args: list[str]) -> list[str]:
    """`help`, `help COMMAND` and `version` as people type them, as options."""
    if args[:1] == ["help"]:
        return [*args[1:], "--help"]
    return ["--version", *args[1:]] if args[:1] == ["version"] else args


def _usage(err: Exception) -> UsageError | None:
    """A parser's complaint as one of our errors (its base class is not public: known by its shape)."""
    describe = getattr(err, "format_message", None)
    if describe is None:
        return None
    ctx = getattr(err, "ctx", None)
    message = describe().rstrip(".").replace(": Value error, ", ": ")  # pydantic's word for it
    return UsageError(message[:1].lower() + message[1:], fix=f"{ctx.command_path if ctx else 'guda'} --help")


def main() -> None:
    """The `guda` program."""
    standard_streams.use()  # a file name that is no text must not end a command
    failures.terminate_like_interrupt()
    if os.environ.get("_GUDA_COMPLETE") == "complete_bash":
        code, replies = completions.in_bash(os.environ, lambda: run(sys.argv[1:]))
        sys.stdout.write(replies)
        sys.stdout.flush()
        sys.exit(code)
    sys.exit(run(sys.argv[1:]))
