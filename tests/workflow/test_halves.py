"""Random halves of the groups, and the names of removals of many groups."""

from __future__ import annotations

import math
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guda_cli.errors import UsageError
from guda_cli.workflow.keys.halves import random_halves
from guda_cli.workflow.keys.removal import Removal

TEN = [f"group {letter}" for letter in string.ascii_lowercase[:10]]


@given(st.integers(2, 12), st.integers(2, 30), st.integers(0, 5))
def test_halves_are_distinct_balanced_and_half(groups: int, count: int, seed: int) -> None:
    names = [f"g{i}" for i in range(groups)]
    found = random_halves(names, count, seed)
    every = math.comb(groups, groups // 2) * (1 + groups % 2)
    assert len(found) == len({*found}) == min(count, every)
    assert all(len(what.groups) in (groups // 2, groups - groups // 2) for what in found)
    even = found[: len(found) // 2 * 2]
    gone = Counter(name for what in even for name in what.groups)
    assert {*gone.values()} == {len(even) // 2}, "each group goes equally often"
    for one, other in zip(even[::2], even[1::2], strict=True):
        assert sorted(one.groups + other.groups) == sorted(names)


def test_more_begin_with_the_same_and_order_of_names_is_nothing() -> None:
    few, many = random_halves(TEN, 6, 1), random_halves(TEN[::-1], 40, 1)
    assert many[:6] == few
    assert random_halves(TEN, 6, 2) != few


def test_halves_that_leave_no_image_are_passed_over() -> None:
    def leaves(what: Removal) -> bool:
        return "a" not in what.groups or "b" not in what.groups

    found = random_halves(["a", "b", "c", "d"], 16, 0, leaves)
    assert len(found) == 4
    assert all(leaves(what) for what in found)
    with pytest.raises(UsageError, match="holds all images"):
        random_halves(["a", "b"], 4, 0, lambda what: False)
    with pytest.raises(UsageError, match="no halves"):
        random_halves(["a"], 4, 0)


def test_names_stay_short() -> None:
    few, many = Removal(("a", "b", "c", "d")), Removal(tuple(TEN))
    assert few.short == few.name == few.typed == few.titled().name == "a+b+c+d"
    assert many.name == many.typed == "+".join(TEN)
    assert many.short.startswith("group a+group b+8 more (")
    assert len(many.short) < 40
    assert many.titled().name == many.titled().short == many.short
    assert many.titled() == many, "the same removal, whatever it is called"
    assert many.titled().params == many.params
    assert Removal(tuple(TEN[:9])).short != Removal((*TEN[:8], TEN[9])).short
