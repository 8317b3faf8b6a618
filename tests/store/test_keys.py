import enum
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guda_cli.store import action_key, canonical_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    SCALARS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PARAMS = st.dictionaries(TEXT, VALUES, max_size=5)


def shuffled(value):
    """The same value with every dict in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def test_canonical_json_is_sorted_compact_utf8():
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


def test_tuples_are_arrays():
    assert canonical_json((1, (2,))) == b"[1,[2]]"


@pytest.mark.parametrize("bad", [math.nan, math.inf, [-math.inf], {"a": {"b": math.nan}}, "\ud800"])
def test_values_json_cannot_hold_are_refused(bad):
    with pytest.raises(ValueError):
        canonical_json(bad)


@pytest.mark.parametrize("bad", [{1, 2}, b"bytes", object(), {1: "a"}, {"a": {None: 1}}, 1j])
def test_types_json_does_not_know_are_refused(bad):
    with pytest.raises(TypeError):
        canonical_json(bad)


def test_refusal_says_where():
    with pytest.raises(TypeError, match=r"value\.a\[1\]"):
        canonical_json({"a": [0, {3}]})


def test_enums_of_strings_are_their_value():
    class Kind(enum.StrEnum):
        A = "a"

    assert canonical_json([Kind.A]) == b'["a"]'


def test_known_key():
    # Keys name results on users' disks: this one must never change.
    key = action_key("train", 1, {"lr": 0.1, "steps": 10}, {"data": "ab"})
    assert key == "32bbde187afb2101deccf0e9d320046a919ffe75453d814216e971058715034b"


@given(PARAMS)
def test_key_does_not_depend_on_the_order_of_dicts(params):
    assert action_key("op", 1, params, {}) == action_key("op", 1, shuffled(params), {})


@given(PARAMS, TEXT, VALUES)
def test_any_changed_parameter_changes_the_key(params, name, value):
    changed = {**params, name: value}
    same = canonical_json(changed) == canonical_json(params)
    assert (action_key("op", 1, params, {}) == action_key("op", 1, changed, {})) == same


@given(PARAMS, PARAMS)
def test_keys_differ_exactly_when_parameters_do(first, second):
    same = canonical_json(first) == canonical_json(second)
    assert (action_key("op", 1, first, {}) == action_key("op", 1, second, {})) == same


def test_operation_version_and_inputs_are_in_the_key():
    keys = {
        action_key("op", 1, {}, {}),
        action_key("op2", 1, {}, {}),
        action_key("op", 2, {}, {}),
        action_key("op", 1, {}, {"a": "00"}),
        action_key("op", 1, {}, {"b": "00"}),
        action_key("op", 1, {}, {"a": "01"}),
        action_key("op", 1, {"a": "00"}, {}),
    }
    assert len(keys) == 7


@pytest.mark.parametrize(
    "arguments", [(1, 1, {}, {}), ("op", "1", {}, {}), ("op", True, {}, {}), ("op", 1, {}, {"a": 1})]
)
def test_keys_of_nonsense_are_refused(arguments):
    with pytest.raises(TypeError):
        action_key(*arguments)
