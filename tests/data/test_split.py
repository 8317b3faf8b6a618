"""Holding images out: how many, which, and what stays in training whatever is asked."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.data.dataset import Dataset, from_bytes, make_dataset, to_bytes
from guda_cli.data.images import pixels_digest
from guda_cli.data.sources import fingerprint, read_dataset
from guda_cli.data.split import hold_out, taken
from guda_cli.errors import RecipeError
from guda_cli.sections import DataSpec
from guda_cli.settings.reading import from_dict

GROUPS = ["a"] * 10 + ["b"] * 5 + ["c"]


def data(labels: list[str] = GROUPS, prefix: str = "") -> Dataset:
    """One distinct image a label; an image of `ab` is in the groups a and b."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] + np.zeros((1, 1, 2, 2), np.uint8)
    names = [f"{prefix}{i:02d}" for i in range(len(labels))]
    return make_dataset(images, names, labels, [f"prompt {i}" for i in range(len(labels))])


def digests(ds: Dataset | None) -> list[str]:
    assert ds is not None
    return [pixels_digest(image) for image in ds.images]


def test_nothing_asked_changes_nothing() -> None:
    ds = data()
    assert hold_out(ds, 0.0) is ds
    assert ds.held_out is None


@pytest.mark.parametrize(("share", "counts"), [(0.2, [2, 1, 0]), (0.5, [5, 2, 0]), (0.04, [0, 0, 0])])
def test_every_group_gives_its_share_and_keeps_an_image(share: float, counts: list[int]) -> None:
    ds = hold_out(data(), share)
    assert ds.held_out is not None
    assert list(ds.held_out.counts().values()) == counts
    assert list(ds.counts().values()) == [10 - counts[0], 5 - counts[1], 1]
    assert ds.held_out.groups == ds.groups == ("a", "b", "c")
    assert sorted(digests(ds) + digests(ds.held_out)) == sorted(digests(data()))


def test_each_image_keeps_its_prompt_and_the_parts_are_data_sets_of_their_own() -> None:
    ds = hold_out(data(), 0.3)
    assert ds.held_out is not None
    for part in (ds, ds.held_out):
        assert [f"prompt {int(image.max())}" for image in part.images] == list(part.prompts)
        assert from_bytes(to_bytes(part)).digest == part.digest
    kept = [int(image.max()) for image in ds.images]
    alone = make_dataset(ds.images, ds.names, [GROUPS[i] for i in kept], ds.prompts)
    assert alone.digest == ds.digest  # the same images without a split are the same data set
    assert "3 images are held out" in hold_out(data(["a"] * 10), 0.3).notes[-1]


def test_names_and_order_do_not_matter() -> None:
    turned = make_dataset(
        data().images[::-1], [f"z{i:02d}" for i in range(16)], GROUPS[::-1], data().prompts[::-1]
    )
    assert set(digests(hold_out(data(), 0.4).held_out)) == set(digests(hold_out(turned, 0.4).held_out))


def test_copies_stay_in_training() -> None:
    images = np.zeros((8, 1, 2, 2), np.uint8)
    images[6:] = [[[[1]]], [[[2]]]]
    ds = hold_out(make_dataset(images, [f"{i}" for i in range(8)], ["a"] * 4 + ["b"] * 4), 0.5)
    assert ds.held_out is not None
    assert set(ds.held_out.names) == {"6", "7"}  # of a none can be: its images are all one


def test_shared_images_count_in_all_their_groups() -> None:
    """a has 4 images, b 2, both of which are a's: 1 may go of b, so that 1 stays."""
    ds = hold_out(make_dataset(data().images[:4], list("1234"), [["a"], ["a"], ["a", "b"], ["a", "b"]]), 0.5)
    assert ds.held_out is not None
    assert ds.counts()["b"] >= 1
    assert ds.counts()["a"] >= 2


@pytest.mark.parametrize(("n", "share", "read"), [(10, 0.0, 10), (8, 0.2, 10), (1, 0.5, 2), (3, 0.2, 4)])
def test_a_limit_a_group_is_of_training_images(n: int, share: float, read: int) -> None:
    assert taken(n, share) == read
    assert read - round(share * read) == n


def test_of_a_source_with_more_images_the_others_are_held_out() -> None:
    spec = DataSpec(source="digits", size=8, channels=1, per_group=8, held_out=0.2)
    ds = read_dataset(spec)
    assert set(ds.counts().values()) == {8}
    assert ds.held_out is not None
    assert set(ds.held_out.counts().values()) == {2}
    assert fingerprint(spec) != fingerprint(DataSpec(source="digits", size=8, channels=1, per_group=8))


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_shares_beyond_a_half_are_refused(share: float) -> None:
    with pytest.raises(RecipeError, match=r"data.held_out is a share in \[0, 0.5\]"):
        from_dict({"data": {"held_out": share}})
