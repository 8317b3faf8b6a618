"""Which null size each group is compared with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guda_cli.workflow.keys.removal import size_classes


def test_alike_groups_share_their_geometric_mean() -> None:
    # digits' ten groups have 174 to 183 images; here 16 * 25 = 20^2 exactly, 25 / 16 > 1.5 splits them
    assert size_classes({"a": 100, "b": 121}) == {"a": 110, "b": 110}
    assert size_classes({"a": 16, "b": 25}) == {"a": 16, "b": 25}


def test_classes_grow_from_the_smallest() -> None:
    """10, 15 | 16, 24: 16 exceeds 1.5 times 10 although it is near 15."""
    found = size_classes({"d": 24, "b": 15, "c": 16, "a": 10})
    assert found == {"a": 12, "b": 12, "c": 20, "d": 20}  # sqrt(150) = 12.2, sqrt(384) = 19.6


def test_spread_is_a_choice() -> None:
    assert size_classes({"a": 1, "b": 100}, spread=100.0) == {"a": 10, "b": 10}
    assert size_classes({"a": 1, "b": 2, "c": 2}, spread=1.0) == {"a": 1, "b": 2, "c": 2}


def test_no_groups_no_classes() -> None:
    assert size_classes({}) == {}


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 5000), min_size=1))
def test_every_group_is_matched_within_the_spread(sizes: dict[str, int]) -> None:
    found = size_classes(sizes)
    assert found.keys() == sizes.keys()
    for name, size in sizes.items():
        assert size / 1.5 - 1 <= found[name] <= size * 1.5 + 1
    assert found == size_classes(dict(reversed(sizes.items())))
