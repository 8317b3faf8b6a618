from __future__ import annotations

import itertools
import math
import re

import pytest

from guda_cli.report.agreement import plots
from guda_cli.report.agreement.content import BandPoint, Interval, StepPoint
from guda_cli.report.pieces.axes import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Axis,
    Box,
    Plot,
    spread,
    text_width,
    values_axis,
    work_label,
)
from tests.report.agreement_builders import metrics, report, row, table


def points(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'<g class="point[^>]*>.*?cx="([-\d.]+)" cy="([-\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_axes_place_values() -> None:
    linear, log = Axis(0.0, 2.0, 10.0, 110.0), Axis(1.0, 100.0, 0.0, 100.0, log=True)
    assert linear.at(0.5) == pytest.approx(35.0)
    assert log.at(10.0) == pytest.approx(50.0)
    assert [log.at(v) for v in (0.01, 1e9)] == pytest.approx([0.0, 100.0])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.31, 0.34), (-0.2, 0.9), (0.0, 1000.0)])
def test_linear_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = Axis(low, high, 0.0, 1.0).ticks()
    assert 3 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert len(steps) == 1


def test_log_ticks_are_inside() -> None:
    assert Axis(500.0, 3e7, 0.0, 1.0, log=True).ticks() == [1e3, 1e4, 1e5, 1e6, 1e7]
    assert Axis(4.0, 60.0, 0.0, 1.0, log=True).ticks() == [5.0, 10.0, 20.0, 50.0]
    assert [work_label(v) for v in (1.0, 200.0, 1e3, 1e4, 3e6)] == ["1", "200", "1,000", "10⁴", "3×10⁶"]


def test_value_axes_hold_everything() -> None:
    axis = values_axis([0.02, 0.93], 0.0, 1.0)
    assert axis.low == 0.0
    assert axis.high >= 0.93
    assert values_axis([-0.1, 0.2], 0.0, 1.0).low <= -0.1
    flat = values_axis([0.5, 0.5], 0.0, 1.0)
    assert flat.low < 0.5 < flat.high


def test_spread_keeps_apart_and_moves_little() -> None:
    assert spread([0.0, 50.0, 100.0]) == [0.0, 50.0, 100.0]
    assert spread([40.0, 10.0, 11.0, 12.0], 10.0) == pytest.approx([40.0, 1.0, 11.0, 21.0])
    joined = spread([10.0, 11.0, 24.0], 10.0)
    assert min(b - a for a, b in itertools.pairwise(joined)) == pytest.approx(10.0)
    assert sum(joined) == pytest.approx(45.0)
    assert spread([]) == []


def names(svg: str) -> list[Box]:
    """Where the names of points stand."""
    found = re.findall(
        r'<text class="name-of[^"]*" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]*)<', svg
    )
    boxes = []
    for x, y, anchor, text in found:
        left = float(x) - (text_width(text) if anchor == "end" else 0.0)
        boxes.append(Box(left, float(y) - 9, left + text_width(text), float(y)))
    return boxes


def test_names_of_crowded_points_do_not_overlap_and_stay_inside() -> None:
    crowd = tuple(row(f"method {i}", 0.5 + 0.004 * i, prepare=1e6 * (1 + 0.01 * i)) for i in range(8))
    boxes = names(plots.cost_plot(report(), table(rows=crowd), "top1"))
    assert len(boxes) == 8
    assert all(one.overlap(other) == 0.0 for one, other in itertools.combinations(boxes, 2))
    assert all(box.left >= LEFT - 1 and box.right <= WIDTH - RIGHT + 1 for box in boxes)
    assert all(box.top > 0 and box.bottom < HEIGHT for box in boxes)


def test_cost_plot_has_a_point_for_every_known_cost() -> None:
    svg = plots.cost_plot(report(), table(), "top1")
    found = points(svg)
    assert (
        len(found) == 3
    )  # guda, das, similarity; random and ceiling are lines, the imported one has no cost
    guda, das, similarity = found
    assert similarity[0] < das[0] < guda[0]
    assert guda[1] < das[1] < similarity[1]
    assert svg.count('class="band') == 2
    assert "LOGO" in svg
    assert "guda: top-1 0.60 (0.55 to 0.65), 2.00 M forward-equivalents" in svg


def test_positions_are_to_scale() -> None:
    methods = tuple(
        row(name, top, prepare=cost)
        for name, top, cost in (("a", 0.2, 1e3), ("b", 0.4, 1e5), ("c", 0.8, 1e6))
    )
    found = points(plots.cost_plot(report(), table(rows=methods), "top1"))
    (xc, yc), (xb, yb), (xa, ya) = found
    assert (xb - xa) / (xc - xb) == pytest.approx(math.log10(100) / math.log10(10), rel=0.01)
    assert (ya - yb) / (yb - yc) == pytest.approx(0.5, rel=0.01)


def test_error_bars_reach_the_interval() -> None:
    plot = Plot(Axis(0.0, 1.0, 0.0, 100.0), Axis(0.0, 1.0, 300.0, 0.0), "x")
    plot.point("p", 50.0, (0.5, 0.25, 0.9), "t")
    assert "M50.0 225.0V30.0" in plot.svg()


def test_bands_plot_has_a_point_a_band_and_series() -> None:
    svg = plots.bands_plot(report().bands, 8)
    assert len(points(svg)) == 3 + 2
    assert plots.bands_plot((), 8) == ""
    assert plots.bands_plot((BandPoint(1, 9, {}, None),), 8) == ""
    assert len(points(plots.bands_plot((BandPoint(1, 9, {}, 0.5),), 8))) == 1


def test_steps_plot_has_a_line_an_operator() -> None:
    svg = plots.steps_plot(report().steps, table(), "ndcg@3")
    assert len(points(svg)) == 6
    assert svg.count('<path class="series') == 2
    assert len(names(svg)) == 2
    assert svg.count('class="band') == 2
    assert plots.steps_plot(report().steps, None, "top1").count('class="band') == 0
    assert plots.steps_plot((), table(), "top1") == ""
    one = (StepPoint("retrack", "elbo", 20, metrics(0.3)),)
    assert len(points(plots.steps_plot(one, None, "top1"))) == 1
    nothing = (StepPoint("retrack", "elbo", 20, {"top1": Interval(float("nan"), 0.0, 1.0)}),)
    assert plots.steps_plot(nothing, None, "top1") == ""
