from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from guda_cli.report.answers import page, terminal
from guda_cli.report.answers.content import Looks, summarise
from tests.report.builders import GROUPS, query, report, score


def shown(parts: list[RenderableType], width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_report_fits_and_says_everything(width: int) -> None:
    text = shown(terminal.render(report(), 2, width), width)
    assert max(map(cell_len, text.splitlines())) <= width
    for part in ("For 1 of 3 images", "a.png", "Mean over 3 images", "looks like", "FAILED", "all steps"):
        assert part in text
    assert "\x1b" not in text
    assert "[red]" in text  # a name, not markup


def test_matrix_is_left_out_where_it_does_not_fit() -> None:
    groups = tuple(f"group number {i}" for i in range(30))
    queries = tuple(query(f"{i}", dict.fromkeys(groups, 1.0), groups[i]) for i in range(3))
    model = report(queries, groups=groups, **summarise(queries, groups)._asdict())
    assert "too wide for 80 columns" in shown(terminal.render(model, 2, 80), 80)


def test_many_queries_are_cut() -> None:
    queries = tuple(query(f"{i}.png", dict.fromkeys(GROUPS, 1.0)) for i in range(30))
    assert "10 more images" in shown(terminal.render(report(queries), 1, 80), 80)


def test_query_table_says_the_answer() -> None:
    none = shown([terminal.query_table(query("x.png", {"cat": 1.0, "dog": -1.0}), 1, "nats")], 80)
    assert "x.png: No group stands out." in none
    assert "nats; 1 more group not shown (--top)" in none
    assert "ositive" not in none  # said once, above all images
    found = query("x.png", {}, scores=(score("cat", 2.0, 7.0, True),), answer=("cat",))
    assert "Stands out: cat." in shown([terminal.query_table(found, 5, "nats")], 80)
    unjudged = query("x.png", {}, scores=(score("cat", 2.0, None, None),), answer=None)
    assert "nothing to compare with" in shown([terminal.query_table(unjudged, 5, "nats")], 80)


def test_bars() -> None:
    assert terminal.bar(1.0, 1.0, 4).plain == "████"
    assert terminal.bar(0.5, 1.0, 4).plain == "██"
    assert terminal.bar(-0.5, 1.0, 4).plain == "▒▒"
    assert terminal.bar(float("nan"), 1.0, 4).plain == ""


def test_rich_and_pillow_are_imported_late() -> None:
    code = (
        "import sys; from guda_cli.report.answers import formats, maps, page, terminal; "
        "assert not {'rich', 'PIL', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_images_look_like_is_explained_or_left_out() -> None:
    sure = shown(terminal.render(report(looks=Looks(0.97, 400, True)), 2, 120), 120)
    assert "nearest training images by pixels, right for 97 % of 400 training images" in sure
    queries = tuple(replace(one, looks_like=None) for one in report().queries)
    unsure = report(queries, looks=Looks(0.31, 400, False))
    text = shown(terminal.render(unsure, 2, 120), 120)
    assert "rows by what the image looks like" not in text
    assert "is not said" in text
    assert "31 % of 400" in text
    html = page.render(unsure)
    assert "is not said" in html
    assert "looks like" not in html.lower().replace("what the images look like is not said", "")
