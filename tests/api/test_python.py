"""`import guda`: the examples of docs/python.md run as they stand, and find what the commands made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import guda
from tests.workflow.fixtures import Cli, cli, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """One example after the other, in one place, as a reader would try them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(compile(example, str(PAGE), "exec"), names)
    printed = capsys.readouterr()
    assert "did you mean 'similarity'" in printed.out
    assert printed.err == ""
    assert [model.what for model in names["models"]][:1] == ["unlearn digit-0"]
    assert set(names["best"].values()) <= {"digit-0", "digit-1", "digit-2"}
    assert len(names["scores"]) == len(names["scores"].rows) / 3 == 4
    assert Path("report.html").stat().st_size > 10_000
    assert sorted(path.name for path in Path("images").iterdir()) == [f"0000{i}.png" for i in range(4)]


def test_it_says_what_the_commands_say(cli: Cli, project: Path) -> None:
    here = guda.open()
    assert here.groups == {"amber": 12, "blue": 12, "cyan": 12, "dune": 12}
    [full] = here.train()
    assert full.weights == cli("train", "--json").document["models"][0]["weights"]
    made = cli("unlearn", "--all", "--json").document["models"]
    found = here.unlearn()
    assert [model.key for model in found] == [model["key"] for model in made]
    assert [model.without for model in found[:2]] == [("amber",), ("blue",)]
    assert found[-1].without == ()
    scores = here.score("q", weighting="uniform")
    told = cli("score", "q", "--weighting", "uniform", "--json").documents
    assert json.loads(json.dumps(list(scores))) == told
    raced = cli("score", "q", "--race", "80%", "--top", "2", "--draws", "4", "--json").documents
    assert json.loads(json.dumps(list(here.score("q", race="80%", top=2, draws=4)))) == raced
    lines = cli("score", "q", "--weighting", "uniform", "--csv").stdout.splitlines()
    assert list(scores.rows[0]) == lines[0].split(",")
    assert len(scores.rows) == len(lines) - 1
    report = here.report(method="guda")
    assert report["queries"] == cli("report", "--json").document["queries"]


def test_a_table_is_a_frame_where_there_is_pandas(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    scores = guda.open().score("q")
    frame = scores.table()
    assert isinstance(frame, pd.DataFrame)
    assert frame["group"].tolist() == [row["group"] for row in scores.rows]
    assert frame["score"].dtype == "float64"
    monkeypatch.setitem(sys.modules, "pandas", None)  # as where it is not installed
    assert scores.table() == list(scores.rows)


def test_bad_input_is_an_error_of_its_own(cli: Cli, project: Path, tmp_path: Path) -> None:
    here = guda.open()
    Path("broken.png").write_bytes(b"no image")
    found = here.score(["broken.png", *sorted(Path("q").glob("*.png"))[:1]])
    assert [path for path, _ in found.unreadable] == ["broken.png"]
    assert len(found) == 1
    for call in (
        lambda: guda.open("no-such-recipe"),
        lambda: guda.open(settings={"train.stepz": 3}),
        lambda: here.score("q", method="guda,logo"),
        lambda: here.score("q", no_such_setting=3),
        lambda: here.score("nowhere.png"),
        lambda: here.unlearn("no-such-group"),
        lambda: here.unlearn("amber", operator="no-such"),
        lambda: here.train(seeds=[3]),
        lambda: here.report(against="guda"),
        lambda: here.report(method="guda,similarity"),
        lambda: here.report(method="similarty"),
        lambda: guda.open("digits", store=tmp_path / "none").score("q"),
    ):
        with pytest.raises(guda.Error) as err:
            call()
        assert err.value.message


def test_importing_it_imports_no_torch() -> None:
    code = "import guda, sys; print(guda.__version__); sys.exit({'torch', 'numpy'} & {*sys.modules} != set())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
