"""What a person reads: errors that wrap between words, plans that fold, numbers without exponents, -v."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from PIL import Image, features
from rich.cells import cell_len

from guda_cli.commands.common import show_plan
from guda_cli.console import Console, width_of, wrapped
from guda_cli.data.images import decode, is_image
from guda_cli.errors import DataError, nearest, unknown
from guda_cli.phrases import short_number, without_exponents
from guda_cli.plain_text import ERRORS, register
from guda_cli.session import Options, Session
from guda_cli.workflow.project.plan import CACHED, TO_DO, Step
from tests.workflow.fixtures import Cli, cli, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]

PATH = "/a/folder-with-a-name/that-is-rather-long/and-goes-on/image.png"
COMMAND = f"guda score {PATH} --weighting min-snr:5 --map FOLDER --store /another/long/folder/of-a-store"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_errors_break_between_words_and_never_a_command(width: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    message = f"cannot read {PATH}: it is not what it should be, by any means that there are"
    console = Console()
    console.error(DataError(message, why="the data are damaged in more than one place", fix=COMMAND))
    console.warn(message)
    console.say(message)
    text = capsys.readouterr().err
    assert f"  try: {COMMAND}\n" in text
    for line in text.splitlines():
        assert cell_len(line) <= width or "try:" in line or line.strip().rstrip(":") == PATH
    assert text.count(PATH) == 4  # never broken, whatever the width
    assert " ".join(text.split()).count(message) == 3


def test_lines_of_files_and_pipes_are_not_wrapped(capsys) -> None:
    Console().error(DataError("word " * 99, fix="another image " * 20))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_what_is_no_command_is_not_to_be_tried(capsys) -> None:
    for fix, lead in (("guda status", "try"), ("pip install x", "try"), ("download it again", "fix")):
        Console().error(DataError("what", fix=fix))
        assert capsys.readouterr().err.splitlines()[1] == f"  {lead}: {fix}"


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("abc", 200), ("0", 200), ("", 200), ("٣", 200)])
def test_the_width_of_what_is_no_terminal(columns: str, width: int, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width_of(io.StringIO()) == width


def test_wrapping_keeps_lines_apart() -> None:
    assert wrapped("a b\nc", 80, 4) == "a b\n    c"
    assert wrapped("a b\nc", None, 4) == "a b\n    c"


def plan(groups: int, failed: tuple[int, ...]) -> list[Step]:
    steps = [Step("full model", CACHED, "", "ab" * 32, 100.0, 1.0)]
    for i in range(groups):
        why = "check failed: the loss did not rise" if i in failed else "check passed"
        steps.append(Step(f"unlearn artist-{i:03d}", CACHED, why, "cd" * 32, 100.0, 1.0))
    return [*steps, Step("unlearn last", TO_DO, "not made yet", "ef" * 32, 100.0, 1.0)]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_plan_of_three_hundred_groups(width: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show_plan(Session(Options()), plan(300, (7, 150, 299)), "plan")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert all(f"artist-{i:03d}" in text for i in (*range(19), 150, 299))
    assert "artist-200" not in text
    assert text.count("cached") == 22
    assert (text.count("check failed") == 3) == (width >= 60)
    assert "280 more rows: --all-rows shows them" in " ".join(text.split())
    assert "1 of 302 steps to do" in text
    show_plan(Session(Options(all_rows=True)), plan(300, ()), "plan")
    assert capsys.readouterr().out.count("artist-") == 300


def test_the_command_folds_and_unfolds(cli: Cli, project: Path) -> None:
    assert cli("status", "--all-rows").stdout == cli("status").stdout  # few rows are never folded


def test_details_say_what_is_there_and_where_it_was_made(cli: Cli, project: Path) -> None:
    lines = cli("unlearn", "--group", "blue", "--no-null", "--verbose").stderr.splitlines()
    assert any(line.startswith("unlearn blue [") and "]: in the store, " in line for line in lines)
    assert "on cpu, 1 thread" in "\n".join(lines)
    fresh = cli("unlearn", "--group", "blue", "--no-null", "--set", "unlearn.steps=1", "-v").stderr
    assert "]: begun, " in fresh
    assert "]: done, " in fresh
    assert "[" not in cli("unlearn", "--group", "blue", "--no-null").stderr


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1390.0, "1,390"), (-0.000756, "−0.000756"), (3.1e-9, "3.10×10⁻⁹"), (2.5e20, "2.50×10²⁰"),
        (9.996, "10.0"), (0.0, "0"),
    ],
)  # fmt: skip
def test_numbers(value: float, shown: str) -> None:
    assert short_number(value) == shown


def test_sentences_of_older_stores() -> None:
    old = "the group's loss did not rise (-7.56e-04 ± 2.4e-03, the rest's +1.03e+03)"
    assert without_exponents(old) == ("the group's loss did not rise (−0.000756 ± 0.0024, the rest's +1,030)")
    assert without_exponents("style-1e-9z of abc1e5 and 12") == "style-1e-9z of abc1e5 and 12"


def test_powers_of_ten_in_ascii(monkeypatch) -> None:
    register()
    assert "3.1×10⁻⁹ ◀".encode("ascii", ERRORS).decode() == "3.1x10-9 <"
    assert sys.stdout


@pytest.mark.parametrize(
    ("word", "guess"),
    [
        ("artist-00", "artist-000"), ("artist-7", "artist-007"), ("artst-123", "artist-123"),
        ("Artist-299", "artist-299"), ("artist-30", "artist-030"), ("zzz", None),
    ],
)  # fmt: skip
def test_the_nearest_name_minds_numbers(word: str, guess: str | None) -> None:
    assert nearest(word, [f"artist-{i:03d}" for i in range(300)]) == guess


def test_known_names_are_counted() -> None:
    assert unknown("group", "zzz", [f"artist-{i:03d}" for i in range(300)]).endswith(" and 288 more")


ONE = ["--timesteps", "1", "--draws", "1", "--grid", "strata:even"]


@pytest.mark.parametrize(
    "command",
    [
        ["score", "q/00000.png", *ONE, "--dry-run"], ["score", "q/00000.png", *ONE],
        ["score", "q/00000.png", *ONE, "--verbose"], ["score", "--import", "s.csv"],
        ["score", "q/00000.png", "--method", "similarity", "--dry-run"],
        ["sample", "-n", "1", "--out", "one"], ["sample", "-n", "1", "--out", "x", "--seed", "4"],
        ["run", "-n", "1", "--dry-run"], ["report"], ["report", "--html", "-"], ["report", "--json"],
        ["store", "ls"], ["store", "ls", "--all"],
    ],
)  # fmt: skip
def test_one_thing_is_no_plural(cli: Cli, project: Path, command: list[str]) -> None:
    Path("s.csv").write_text("image,group,score\nq/00000.png,blue,1\n")
    if command[0] in ("report", "store"):
        cli("score", "q/00000.png", "--set", "score.seed=8", *ONE)
        command = [*command, "--set", "score.seed=8", *ONE] if command[0] == "report" else command
    done = cli(*command)
    said = re.findall(r"(?<![\w.,/+−-])1 (?!pass\b|s\b)[a-z]+s\b", done.stdout + done.stderr)
    assert not said


@pytest.mark.parametrize(
    "command",
    [
        ["score"], ["score", ""], ["score", "q", "--set", "train"], ["score", "q", "--set", "train.lr=-1"],
        ["unlearn", "--all", "--operator", "x"], ["unlearn", "--all", "--params", "lora:0"],
        ["unlearn", "--all", "--lr", "-1"], ["sample", "--out", "z", "--sampler", "x"],
        ["score", "q", "--group", "x"], ["score", "q", "--method", "x"], ["score", "q", "--rank", "x"],
        ["score", "q", "--aggregate", "x", "--method", "similarity"], ["tune", "--operator", "x"],
    ],
)  # fmt: skip
def test_what_was_typed_wrongly_ends_with_2(cli: Cli, project: Path, command: list[str]) -> None:
    cli(*command, code=2)


def test_a_recipe_that_is_wrong_itself_ends_with_3(cli: Cli, project: Path) -> None:
    Path("mine.yaml").write_text("train: {lr: -1}\n")
    cli("train", "mine.yaml", "--set", "train.epochs=2", code=3)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 200).save(tmp_path / "a.avif")
    assert is_image("a.avif")
    pixels = decode(tmp_path / "a.avif", 8, 1, "a.avif")
    assert abs(int(pixels.mean()) - 200) <= 3


def test_an_image_that_is_too_large_says_what_to_do(tmp_path: Path) -> None:
    Image.new("1", (14000, 14000)).save(tmp_path / "large.png")
    with pytest.raises(DataError) as caught:
        decode(tmp_path / "large.png", 8, 1, "large.png")
    assert "178,956,970 pixels; make it smaller: the model sees 8 x 8" in caught.value.why
    assert caught.value.fix
