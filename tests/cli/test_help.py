"""The pages of help: options under headings, examples that parse, nothing cut and nothing of the parser's."""

from __future__ import annotations

import re
import shlex

import pytest
from rich.cells import cell_len

from guda_cli import app
from guda_cli.help_pages import EXAMPLES, PANELS
from tests.cli.test_fixes import parse


def pages() -> list[str]:
    """The words of every command."""
    found = []
    for name in app.COMMANDS:
        command = app._build(name)
        found += [f"{name} {sub}" for sub in getattr(command, "commands", ())] or [name]
    return found


PAGES = pages()


def shown(words: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    assert app.run([*words.split(), "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", PAGES)
def test_every_command_has_an_example_that_parses(words: str) -> None:
    for line in EXAMPLES[words]:
        program, *rest = shlex.split(line.partition(" >")[0])
        assert program == "guda"
        assert rest[: len(words.split())] == words.split()
        parse(rest)


@pytest.mark.parametrize("name", PANELS)
def test_headings_name_options_that_there_are(name: str) -> None:
    known = {option for param in app._build(name).params for option in param.opts}
    named = [option for options in PANELS[name].values() for option in options]
    assert set(named) <= known
    assert len(named) == len(set(named))


@pytest.mark.parametrize("words", ["", "store", *PAGES])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_pages_fit_and_say_everything(words: str, width: int, capsys, monkeypatch) -> None:
    text = shown(words, width, capsys, monkeypatch)
    body, _, examples = text.rpartition("Start with:" if not words else "Example")
    body = body if examples and words != "store" else text
    assert max(map(cell_len, body.splitlines())) <= max(width, 40), body
    for leak in ("<", "x>=", "default:", "with...", "{"):
        assert leak not in body, body
    if words in EXAMPLES:
        assert all(f"\n  {line}\n" in text for line in EXAMPLES[words])  # on a line, to be copied


def test_the_first_commands_can_be_copied(capsys, monkeypatch) -> None:
    text = shown("", 60, capsys, monkeypatch)
    line = text.rstrip().splitlines()[-1].strip()
    assert line.startswith("guda init pictures && ")
    for part in line.split(" && "):
        parse(shlex.split(part)[1:])


def test_defaults_stand_in_brackets(capsys, monkeypatch) -> None:
    text = shown("score", 100, capsys, monkeypatch)
    assert "Groups shown an image [5; 1 with --race]." in text
    assert text.index("Which groups") < text.index("How scores are estimated") < text.index("Common options")
    assert shown("check", 100, capsys, monkeypatch).count("[64].") == 1
    assert "Folder for the images [required]." in shown("sample", 100, capsys, monkeypatch)


def test_options_of_every_command_are_shown_once(capsys, monkeypatch) -> None:
    for words in PAGES:
        name, *sub = words.split()
        command = app._build(name)
        command = command.commands[sub[0]] if sub else command
        text = shown(words, 100, capsys, monkeypatch).partition("Example")[0]
        for param in command.params:
            if param.param_type_name == "option":
                long = max(param.opts, key=len)
                named = re.findall(rf"^  (?:-\w, )?(?:--[\w-]+/)?{re.escape(long)}(?![\w-])", text, re.M)
                assert len(named) == 1, (words, long)
