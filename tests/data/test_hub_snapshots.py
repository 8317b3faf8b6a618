"""Snapshots in the hub's cache: every file is a link to `../../blobs`, as `snapshot_download` leaves them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from guda_cli.data.sources import fingerprint, read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec
from tests.data.conftest import PngBytes, Write
from tests.data.test_parquet import hub
from tests.data.test_webdataset import samples

FORMS = ("parquet", "shards", "captions", "archive")


def cached(files: Path, cache: Path) -> Path:
    """The files as one snapshot of a cache; the cache's folder."""
    for path in sorted(p for p in files.rglob("*") if p.is_file()):
        data = path.read_bytes()
        blob = cache / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = cache / "snapshots" / "0a1b" / path.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = len(link.relative_to(cache).parts) - 1
        link.symlink_to(Path(*[".."] * up, "blobs", blob.name))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0a1b")
    return cache


@pytest.fixture(params=FORMS)
def source(
    request: pytest.FixtureRequest, tmp_path: Path, png: PngBytes, tar: Write, folder: Write,
    two_groups: dict[str, bytes],
) -> tuple[Path, str, tuple[str, ...]]:  # fmt: skip
    """A folder of files, what of it is named, and the groups."""
    top = tmp_path / "plain"
    top.mkdir()
    (top / ".gitattributes").write_text("*.tar filter=lfs")
    if request.param == "parquet":
        return hub(top, png), "", ("folder",)
    if request.param == "captions":
        named = {f"10_{name}": data for name, data in two_groups.items()}
        folder({**named, "10_cat/0.txt": b"a cat"}, "plain")
        return top, "", ("folder",)
    if request.param == "archive":
        tar(two_groups, "plain/images.tar")
        return top, "images.tar", ("folder",)
    for i in range(2):
        tar(samples(png, 3 * i, 3 * i + 3), f"plain/train-{i:04d}.tar")
    return top, "", ("cls",)


def test_a_snapshot_is_what_its_files_are(source: tuple[Path, str, tuple[str, ...]], tmp_path: Path) -> None:
    files, name, group = source
    cache = cached(files, tmp_path / "datasets--some--set")
    plain = read_dataset(DataSpec(path=str(files / name), size=8, channels=3, group=group))
    for path in (cache / "snapshots" / "0a1b" / name, *([] if name else [cache])):
        spec = DataSpec(path=str(path), size=8, channels=3, group=group)
        found = read_dataset(spec)
        assert found.digest == plain.digest
        assert found.prompts == plain.prompts
        assert fingerprint(spec) == fingerprint(spec)


@pytest.mark.parametrize("where", ["outside", "nowhere"])
@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_links_that_lead_elsewhere_are_refused(
    tmp_path: Path, tar: Write, png: PngBytes, where: str, suffix: str
) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    target = tar(samples(png, 0, 2), f"other.{suffix}") if where == "outside" else inside / "gone"
    (inside / f"s-0.{suffix}").symlink_to(target)
    with pytest.raises(DataError, match="is refused") as caught:
        read_dataset(DataSpec(path=str(inside), size=8, channels=3, group=("cls",)))
    assert "link that leads" in caught.value.why
