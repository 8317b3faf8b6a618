"""The time left over several stages, on a clock of its own."""

from __future__ import annotations

import pytest

from guda_cli.time_left import Stage, Stages


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Meter:
    def __init__(self, clock: Clock, total: int, first: int = 0) -> None:
        self.done = self.first = first
        self.part = 0.0
        self.total, self.began = total, clock.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def started(clock: Clock, *seconds: float, counted: bool = True) -> Stages:
    stages = Stages([Stage(f"{i}", s, counted) for i, s in enumerate(seconds)], clock)
    stages.begin("0")
    return stages


def test_before_anything_is_measured_it_is_what_was_expected(clock: Clock) -> None:
    stages = Stages([Stage("a", 10.0), Stage("b", 20.0)], clock)
    assert stages.left() == 30.0
    stages.begin("a")
    clock.now += 4.0
    assert stages.left() == 26.0


def test_a_meter_corrects_this_stage_and_those_to_come(clock: Clock) -> None:
    stages = started(clock, 10.0, 20.0)
    meter = Meter(clock, total=100)
    stages.enter(meter)
    clock.now, meter.done = clock.now + 10.0, 50  # twice as slow as expected
    assert stages.left() == pytest.approx(10.0 + 40.0)
    stages.leave(meter)
    clock.now += 10.0
    stages.begin("1")
    assert stages.left() == pytest.approx(40.0)


def test_after_a_resume_only_what_was_done_now_tells_the_rate(clock: Clock) -> None:
    stages = started(clock, 10.0)
    meter = Meter(clock, total=100, first=80)
    stages.enter(meter)
    clock.now, meter.done = clock.now + 5.0, 90
    assert stages.left() == pytest.approx(5.0)


def test_inner_meters_are_part_of_the_outer_ones_next_unit(clock: Clock) -> None:
    stages = started(clock, 100.0)
    outer, inner = Meter(clock, total=4), Meter(clock, total=10)
    stages.enter(outer)
    stages.enter(inner)
    clock.now, inner.done = clock.now + 5.0, 5  # half of the first of four
    assert stages.left() == pytest.approx(35.0)


def test_a_stage_of_several_meters_is_not_over_with_the_first(clock: Clock) -> None:
    stages = started(clock, 100.0, counted=False)
    meter = Meter(clock, total=10)
    stages.enter(meter)
    clock.now, meter.done = clock.now + 10.0, 10
    assert stages.left() == pytest.approx(90.0)


def test_what_was_skipped_counts_nothing(clock: Clock) -> None:
    stages = started(clock, 0.0, 50.0)
    clock.now += 0.5
    stages.begin("1")
    assert stages.left() == pytest.approx(50.0)
