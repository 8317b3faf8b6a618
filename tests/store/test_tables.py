import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guda_cli.store import Store, StoreError, action_key
from tests.store.inside import blob_file

TABLE = action_key("elbo", 1, {"grid": 4}, {})
ROWS = [action_key("query", 1, {"n": n}, {}) for n in range(12)]
TERMS = np.random.default_rng(0).normal(size=(12, 3, 4))
STEPS = np.arange(12, dtype=np.int32)


def put(store, *positions, attrs=None):
    at = list(positions)
    arrays = {"terms": TERMS[at], "steps": STEPS[at]}
    return store.table_publish(TABLE, {"grid": 4}, [ROWS[n] for n in at], arrays, attrs or {})


def test_rows_come_back_in_the_order_asked_for(store):
    put(store, 0, 1, 2)
    put(store, 5, 3)
    put(store, 4)
    asked = [4, 0, 5, 2, 3, 1]
    arrays, missing = store.table_read(TABLE, [ROWS[n] for n in asked])
    assert missing == []
    np.testing.assert_array_equal(arrays["terms"], TERMS[asked])
    np.testing.assert_array_equal(arrays["steps"], STEPS[asked])
    assert arrays["steps"].dtype == np.int32


def test_missing_rows_are_named(store):
    assert store.table_read(TABLE, ROWS[:2]) == ({}, ROWS[:2])
    put(store, 1, 3)
    arrays, missing = store.table_read(TABLE, ROWS[:4])
    assert missing == [ROWS[0], ROWS[2]]
    np.testing.assert_array_equal(arrays["terms"], TERMS[[1, 3]])
    assert store.table_rows(TABLE) == {ROWS[1], ROWS[3]}


def test_a_row_may_be_asked_for_twice(store):
    put(store, 0, 1)
    arrays, _ = store.table_read(TABLE, [ROWS[1], ROWS[0], ROWS[1]])
    np.testing.assert_array_equal(arrays["terms"], TERMS[[1, 0, 1]])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=st.lists(
        st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True), min_size=2, max_size=5
    ),
    asked=st.lists(st.integers(0, 11), max_size=8),
)
def test_reading_does_not_depend_on_blocks_or_merging(tmp_path_factory, blocks, asked):
    store = Store.open(tmp_path_factory.mktemp("table"))
    for block in blocks:
        put(store, *block)
    held = set().union(*blocks)
    for _ in range(2):
        arrays, missing = store.table_read(TABLE, [ROWS[n] for n in asked])
        assert set(missing) == {ROWS[n] for n in asked if n not in held}
        present = [n for n in asked if n in held]
        if present:
            np.testing.assert_array_equal(arrays["terms"], TERMS[present])
        assert store.table_rows(TABLE) == {ROWS[n] for n in held}
        store.table_compact(TABLE, above=1)


def test_equal_content_makes_equal_bytes(store, tmp_path):
    other = Store.open(tmp_path / "other")
    assert put(store, 2, 0, 1, attrs={"model": "a"}) == put(other, 2, 0, 1, attrs={"model": "a"})
    assert put(store, 0, 1) != put(store, 1, 0)


def test_known_segment_is_closed_checked_hdf5(store):
    import h5py

    with h5py.File(blob_file(store, put(store, 0, 1)), "r", locking=False) as file:
        terms = file["arrays/terms"]
        assert terms.fletcher32
        assert terms.shape == (2, 3, 4)
        assert terms.dtype == np.float64


def test_merging_keeps_all_rows_and_says_so(store):
    for n in range(5):
        put(store, n, attrs={"model": "a"})
    assert not store.table_compact(TABLE)
    assert store.table_compact(TABLE, above=4)
    assert not store.table_compact(TABLE, above=1)
    (summary,) = store.tables()
    assert (summary["segments"], summary["rows"], summary["spec"]) == (1, 5, {"grid": 4})
    assert store.table_specs() == {TABLE: {"grid": 4}}
    arrays, missing = store.table_read(TABLE, ROWS[:5])
    assert missing == []
    np.testing.assert_array_equal(arrays["terms"], TERMS[:5])


def test_two_orders_of_publishing_merge_to_the_same_bytes(store, tmp_path):
    other = Store.open(tmp_path / "other")
    for n in range(4):
        put(store, n, attrs={"block": n})
        put(other, 3 - n, attrs={"block": 3 - n})
    for each in (store, other):
        each.table_compact(TABLE, above=1)
    (first,), (second,) = ((each.root / "tables" / TABLE).glob("?" * 64 + ".json") for each in (store, other))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_attributes_survive_two_mergings(store):
    from guda_cli.store.segments import read

    for n in range(4):
        put(store, n, attrs={"block": n})
        store.table_compact(TABLE, above=1)
    (record,) = (store.root / "tables" / TABLE).glob("?" * 64 + ".json")
    assert read(blob_file(store, record.stem))[2] == {"merged": [{"block": n} for n in range(4)]}


def test_doubled_rows_have_one_value_whoever_reads(store):
    values = [store.table_publish(TABLE, {}, ROWS[:1], {"x": np.array([v])}, {}) for v in (1.0, 2.0, 3.0)]
    winner = float(values.index(min(values)) + 1)
    assert store.table_read(TABLE, ROWS[:1])[0]["x"].tolist() == [winner]
    store.table_compact(TABLE, above=1)
    assert store.table_read(TABLE, ROWS[:1])[0]["x"].tolist() == [winner]


def test_a_reader_outlives_merging_and_collection(store, monkeypatch):
    """A listing read before a merge leads to segments that are gone; the reader looks again."""
    for n in range(4):
        put(store, n)
    real = store._tables.segments
    stale = iter([real(TABLE)])
    other = Store.open(store.root)
    other.table_compact(TABLE, above=1)
    other.gc(dry_run=False, grace_seconds=-10)
    monkeypatch.setattr(store._tables, "segments", lambda table: next(stale, None) or real(table))
    arrays, missing = store.table_read(TABLE, ROWS[:4])
    assert missing == []
    np.testing.assert_array_equal(arrays["terms"], TERMS[:4])
    assert store.notices == []


def test_arrays_of_another_shape_are_refused(store):
    put(store, 0)
    with pytest.raises(ValueError, match="holds"):
        store.table_publish(TABLE, {"grid": 4}, ROWS[1:2], {"terms": np.zeros((1, 3, 5))}, {})


def test_another_spec_is_refused(store):
    put(store, 0)
    with pytest.raises(ValueError, match="spec"):
        store.table_publish(TABLE, {"grid": 5}, ROWS[:1], {"terms": TERMS[:1]}, {})


@pytest.mark.parametrize(
    ("rows", "arrays"),
    [
        ([], {"x": np.zeros(0)}),
        (["a", "a"], {"x": np.zeros(2)}),
        (["a"], {"x": np.zeros(2)}),
        (["a"], {"x": np.float64(1)}),
        (["a"], {}),
        (["a"], {"x/y": np.zeros(1)}),
        (["a"], {"x": np.array([object()])}),
        ([""], {"x": np.zeros(1)}),
    ],
)
def test_what_is_no_segment_is_refused(store, rows, arrays):
    with pytest.raises(ValueError):
        store.table_publish(TABLE, {}, rows, arrays, {})
    assert store.tables() == []


def test_odd_shapes(store):
    arrays = {
        "empty": np.zeros((2, 0)),
        "flags": np.array([True, False]),
        "wide": np.zeros((2, 100_000), "f4"),
    }
    store.table_publish(TABLE, {}, ROWS[:2], arrays, {})
    found, _ = store.table_read(TABLE, ROWS[1::-1])
    assert found["empty"].shape == (2, 0)
    assert found["flags"].tolist() == [False, True]
    assert found["wide"].dtype == np.float32


def test_segments_of_two_programs_are_not_mixed(store, tmp_path):
    other = Store.open(tmp_path / "other")
    put(store, 0)
    digest = other.table_publish(TABLE, {"grid": 4}, ROWS[1:2], {"else": np.zeros(1)}, {})
    store.put_bytes(other.read_bytes(digest))
    record = f"tables/{TABLE}/{digest}.json"
    (store.root / record).write_bytes((other.root / record).read_bytes())
    with pytest.raises(StoreError, match="different arrays"):
        store.table_read(TABLE, ROWS[:2])
    with pytest.raises(StoreError, match="different arrays"):
        store.table_compact(TABLE, above=1)
    assert len(list((store.root / "tables" / TABLE).glob("?" * 64 + ".json"))) == 2
