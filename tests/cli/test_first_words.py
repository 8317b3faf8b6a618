"""What people type first, settings of the environment, and terminals that cannot show every character."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guda_cli import environment
from guda_cli.console import SilentMeter
from guda_cli.errors import UsageError
from guda_cli.phrases import short_number
from guda_cli.plain_text import unicode
from tests.workflow.fixtures import RECIPE, Cli, cli, draw, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]

ODD = os.fsdecode(b"caf\xe9.png")


def guda(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guda_cli", *args]
    return subprocess.run(command, env=os.environ | env, text=True, capture_output=True, errors="replace")


def test_help_and_version_as_people_type_them() -> None:
    whole, one = guda("help"), guda("help", "score")
    assert "Commands" in whole.stdout
    assert one.stdout == guda("score", "--help").stdout
    assert guda("version").stdout == guda("-V").stdout == guda("--version").stdout
    assert whole.returncode == one.returncode == 0


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5", "٣"])
def test_variables_that_are_no_numbers(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUDA_THREADS", text)
    with pytest.raises(UsageError, match="GUDA_THREADS") as error:
        environment.whole("GUDA_THREADS", most=9)
    assert error.value.fix == "unset GUDA_THREADS"


def test_variables_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, want in (("", 7), ("3", 3)):
        monkeypatch.setenv("GUDA_X", text)
        assert environment.whole("GUDA_X", 7, most=9) == want
    for text, want in (("", 20.0), ("0", 0.0), ("2.5", 2.5)):
        monkeypatch.setenv("GUDA_X", text)
        assert environment.seconds("GUDA_X", 20.0) == want
    for text in ("x", "-1", "nan", "inf"):
        monkeypatch.setenv("GUDA_X", text)
        with pytest.raises(UsageError):
            environment.seconds("GUDA_X", 20.0)


def test_they_are_told_before_any_work(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GUDA_THREADS", "GUDA_BATCH_SIZE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "abc")
            assert name in cli("score", "q", "--seed", 3, code=2).stderr


def test_a_name_that_is_no_text_is_carried_through(cli: Cli, project: Path) -> None:
    Path(ODD).write_bytes(Path("q/00000.png").read_bytes())
    assert unicode("a\udce9b\ud800") == "a\\xe9b\\ud800"
    odd = os.fsencode(ODD)
    for arguments in (["score", odd], ["score", odd, "--json"], ["sample", "-n", "1", "--out", b"out\xe9"]):
        done = subprocess.run([sys.executable, "-m", "guda_cli", *arguments], capture_output=True)
        assert done.returncode == 0, done.stderr
    assert Path(os.fsdecode(b"out\xe9"), "00000.png").is_file()
    assert guda("report", "--html", "r.html").returncode == 0
    assert "caf" in Path("r.html").read_text(encoding="utf-8")


def test_a_stream_of_ascii_gets_plain_characters(project: Path) -> None:
    done = guda("score", "q/00000.png", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "\\u" not in done.stdout
    assert "..." in done.stdout
    assert "+-" in done.stdout


def test_the_store_of_a_folder_above_serves(project: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    Path("deep/er").mkdir(parents=True)
    before = cli("status", "--json").document
    assert "folder above" not in cli("status").stderr
    above = Path.cwd() / ".guda"
    monkeypatch.chdir("deep/er")
    done = cli("status", "--json")
    assert done.document == before
    assert f"the store of a folder above: {above}" in done.stderr
    assert "folder above" not in cli("status", "--store", "../../.guda").stderr
    assert len(cli("score", "../../q/00000.png", "--json").documents) == 1
    assert not Path(".guda").exists()


def test_a_dry_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    draw(tmp_path / "images", ("amber", "blue"), images=2)
    cli("train", "tiny.yaml", "--dry-run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "tiny.yaml"]


def test_a_folder_of_images_is_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "my pictures", ("amber",), images=1)
    done = cli("train", "my pictures", code=3)
    assert "my pictures is a folder, not a recipe" in done.stderr
    assert "try: guda init 'my pictures'" in done.stderr


def test_gc_takes_dry_run_and_removes_nothing(cli: Cli, project: Path) -> None:
    found = cli("store", "gc", "--dry-run", "--force", "--grace", 0, "--json").document
    assert found["removed"] is False


def test_nothing_read_is_said_so(cli: Cli, project: Path) -> None:
    Path("bad.png").write_bytes(b"x")
    done = cli("score", "bad.png", code=3)
    assert "no image was scored" in done.stderr
    assert "every term was in the store" not in done.stderr


def test_a_page_alone_or_on_standard_output(cli: Cli, project: Path) -> None:
    cli("score", "q")
    assert not cli("report", "--html", "r.html").stdout
    printed = cli("report", "--html", "-").stdout
    assert printed.startswith("<!DOCTYPE html>")
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1290.4, "1,290"), (12.34, "12.3"), (0.0107, "0.0107"), (2.5e6, "2,500,000"), (0.0, "0")],
)
def test_rates_have_no_exponents(value: float, shown: str) -> None:
    assert short_number(value) == shown


def test_what_was_there_says_nothing_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("guda_cli.console.time.monotonic", lambda: clock[0])
    bar = SilentMeter("unlearn", 16, "group", 0)
    bar.found(3)
    clock[0] = 1.0
    assert bar.info() == ""
    bar.advance(1)
    clock[0] = 10.0
    assert bar.info() == "0.100 groups/s, 2:00 left"
