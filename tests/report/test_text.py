from __future__ import annotations

import pytest

from guda_cli.report.pieces import css
from guda_cli.report.pieces.text import (
    Scale,
    change,
    duration,
    flatten,
    number,
    printable,
    scale_for,
    shorten,
    significant,
    z_text,
)


def test_control_and_direction_characters_are_replaced() -> None:
    assert printable("a\x1b[31m\n\u202e\udcffé") == "a\\x1b[31m\\n<U+202E>\\xffé"


@pytest.mark.parametrize(
    ("values", "errors", "expected"),
    [
        ([1.5, 0.2], [0.01], Scale(0, 2)),
        ([0.00123], [0.0001], Scale(-3, 2)),
        ([84000.0], [], Scale(3, 1)),
        ([5.0], [0.00001], Scale(0, 4)),
        ([0.0, float("nan"), None], [], Scale(0, 2)),
        ([5e-324], [], Scale(-300, 2)),
        ([1e308], [], Scale(306, 0)),
    ],
)
def test_scale(values: list[float | None], errors: list[float], expected: Scale) -> None:
    got = scale_for(values, errors)
    assert got == expected
    assert all(got.show(value) for value in values)


def test_scale_shows_units_and_no_negative_zero() -> None:
    scale = scale_for([0.00123], [0.0001])
    assert scale.label == "×10⁻³"
    assert scale.pair(0.00123, 0.0001) == "+1.23 ± 0.10"
    assert scale.pair(0.00123, None) == "+1.23"
    assert number(-0.001, 2, sign=True) == "0.00"
    assert number(-1.5, 1) == "\u22121.5"
    assert number(float("inf"), 1) == "–"


def test_small_formats() -> None:
    assert significant(0.0512345) == "0.0512"
    assert significant(12345.0) == "12,345"
    assert significant(0.0) == "0"
    assert change(0.05, 0.06) == "+20.0 %"
    assert change(0.0, 1.0) == "–"
    assert [duration(s) for s in (None, 0.5, 61.0, 200.0, 7260.0)] == [
        "–",
        "0.50 s",
        "61 s",
        "3 min 20 s",
        "2 h 01 min",
    ]
    assert [z_text(z) for z in (2.34, 954.2, 1e5, -1e5, None)] == ["2.3", "954", ">9,999", "<−9,999", "–"]
    assert shorten("abcdefghij", 7) == "abc…hij"
    assert len(shorten("x" * 99, 20)) == 20
    assert flatten({"a": {"b": [1, 2]}, "c": [{"d": None}]}) == [("a.b", "1, 2"), ("c[0].d", "–")]


@pytest.mark.parametrize("scheme", [css.LIGHT, css.DARK])
def test_numbers_on_the_ramp_are_legible(scheme: dict[str, str]) -> None:
    for colour, ink in css.ramp(scheme).values():
        assert css.contrast(colour, ink) >= 4.5


def test_heat_class() -> None:
    assert css.heat_class(0.0, 1.0) == "h0"
    assert css.heat_class(5.0, 1.0) == "hp9"
    assert css.heat_class(-1.0, 1.0) == "hn9"
    assert css.heat_class(1.0, 0.0) == "h0"
