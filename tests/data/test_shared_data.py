"""The real data sets the recipes are written for, a few images of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from guda_cli.data.sources import read_dataset
from guda_cli.data.styles import check_captions, content_ids, styles_of
from guda_cli.sections import DataSpec, TextSpec

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"

pytestmark = pytest.mark.shared_data


def _archive(name: str) -> str:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"../shared/data/{name} is absent")
    return str(path)


def test_cifar10_jpegs() -> None:
    ds = read_dataset(DataSpec(path=_archive("cifar10.tar"), root="train", size=16, per_group=3))
    assert len(ds) == 30
    assert ds.groups[0] == "airplane"
    assert ds.names[0] == "airplane/0000.jpg"
    assert ds.images.std() > 20


def test_emoji_styles_by_metadata_column() -> None:
    spec = DataSpec(path=_archive("emoji-styles.tar"), group=("style",), size=32, per_group=4)
    ds = read_dataset(spec)
    assert set(ds.counts().values()) == {4}
    assert len(ds.groups) == 11
    assert all(prompt and "emoji, artistic style" in prompt for prompt in ds.prompts)
    assert "styles.json" in ds.notes[0]
    assert (ds.images[:, :, 0, 0] == 255).mean() > 0.9


def test_emoji_styles_show_the_same_things() -> None:
    groups = ("emojione", "noto", "openmoji")
    spec = DataSpec(path=_archive("emoji-styles.tar"), common="concept", groups=groups, size=16, per_group=5)
    ds = read_dataset(spec)
    assert set(ds.counts().values()) == {5}
    assert any(note.startswith("7340 images were left out: their concept") for note in ds.notes)
    shown = content_ids(ds)
    assert shown[:5] == shown[5:10] == shown[10:]
    assert {group: len(own) >= 3 for group, own in styles_of(ds, TextSpec(), None).items()} == dict.fromkeys(
        groups, True
    )
    check_captions(ds)
