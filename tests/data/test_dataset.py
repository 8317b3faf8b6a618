from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guda_cli.data.dataset import Dataset, from_bytes, make_dataset, to_bytes
from guda_cli.errors import CorruptError, DataError


def _small(**changes: object) -> Dataset:
    images = np.arange(3 * 1 * 2 * 2, dtype=np.uint8).reshape(3, 1, 2, 2)
    values: dict[str, object] = {
        "images": images,
        "names": ["c", "a", "b"],
        "labels": [{"x"}, {"y"}, {"x", "y"}],
        "prompts": ["one", None, "drei ü"],
    }
    return make_dataset(**{**values, **changes})  # type: ignore[arg-type]


def test_make_dataset_sorts_everything_by_name() -> None:
    ds = _small()
    assert ds.names == ("a", "b", "c")
    assert ds.groups == ("x", "y")
    assert ds.membership.tolist() == [[False, True], [True, True], [True, False]]
    assert ds.prompts == (None, "drei ü", "one")
    assert ds.images[0].ravel().tolist() == [4, 5, 6, 7]
    assert ds.counts() == {"x": 2, "y": 2}
    assert len(ds) == 3


def test_members_of_a_group_and_of_an_unknown_one() -> None:
    ds = _small(labels=[{"cat"}, {"dog"}, {"dog"}])
    assert ds.members("dog").tolist() == [True, True, False]
    with pytest.raises(DataError, match="did you mean 'cat'"):
        ds.members("catt")


def test_bytes_round_trip_and_are_stable() -> None:
    ds = _small(notes=["a note"])
    data = to_bytes(ds)
    assert data == to_bytes(_small())
    back = from_bytes(data)
    assert to_bytes(back) == data
    assert (back.names, back.groups, back.prompts, back.digest) == (
        ds.names,
        ds.groups,
        ds.prompts,
        ds.digest,
    )
    np.testing.assert_array_equal(back.images, ds.images)
    np.testing.assert_array_equal(back.membership, ds.membership)
    assert back.images.flags.writeable


def test_the_format_of_a_stored_data_set_does_not_drift() -> None:
    assert _small().digest == "0743bde488a52d9a9ac9fbf7bb6b0623afa034b39886526f948221383c2fc531"


@pytest.mark.parametrize("data", [b"", b"12345678", b"\xff" * 64])
def test_foreign_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        from_bytes(data)


def test_a_flipped_bit_is_noticed() -> None:
    data = bytearray(to_bytes(_small()))
    data[-1] ^= 1
    with pytest.raises(CorruptError):
        from_bytes(bytes(data))


def test_a_foreign_safetensors_file_is_corrupt() -> None:
    from safetensors.numpy import save

    with pytest.raises(CorruptError):
        from_bytes(
            save({"images": np.zeros((1, 1, 1, 1), np.uint8), "membership": np.ones((1, 1), np.bool_)})
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["c", "a", "z"]},
        {"labels": [{"x"}, {"y"}, {"x"}]},
        {"labels": [{"X"}, {"y"}, {"X", "y"}]},
        {"prompts": ["one", "None", "drei ü"]},
        {"images": np.zeros((3, 1, 2, 2), np.uint8)},
        {"images": np.arange(12, dtype=np.uint8).reshape(3, 2, 1, 2)},
    ],
)
def test_digest_covers_every_part(changes: dict[str, object]) -> None:
    assert _small(**changes).digest != _small().digest


@given(st.permutations(range(5)))
def test_digest_does_not_depend_on_the_order_given(order: list[int]) -> None:
    images = np.arange(5 * 3, dtype=np.uint8).reshape(5, 3, 1, 1)
    names = ["b", "a/2", "a", "Z", "ä"]
    labels = [{"x"}, {"y"}, {"x", "y"}, {"x"}, {"y"}]
    prompts = ["p", None, "q", "", None]
    expected = make_dataset(images, names, labels, prompts)
    given_ = make_dataset(
        images[order], [names[i] for i in order], [labels[i] for i in order], [prompts[i] for i in order]
    )
    assert given_.digest == expected.digest
    assert to_bytes(given_) == to_bytes(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["a", "a", "b"]},
        {"names": ["a", "b"]},
        {"images": np.zeros((3, 1, 2, 2), np.float32)},
        {"images": np.zeros((3, 2, 2), np.uint8)},
    ],
)
def test_ill_shaped_input_is_a_value_error(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        _small(**changes)
