import hashlib
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guda_cli.store import MissingBlob, Store


def leftovers(store):
    return list((store.root / "tmp").iterdir())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=5000))
def test_bytes_come_back(store, data):
    digest = store.put_bytes(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert store.read_bytes(digest) == data
    assert store.blob_path(digest).read_bytes() == data
    assert store.blob_size(digest) == len(data)


def test_the_three_ways_of_storing_agree(store, tmp_path):
    data = bytes(range(256)) * 9000
    source = tmp_path / "source"
    source.write_bytes(data)
    with store.writer(".bin") as out:
        assert out.path.suffix == ".bin"
        out.path.write_bytes(data)
        written = out.commit()
    assert written == store.put_bytes(data) == store.put_file(source)
    assert source.exists()
    assert not leftovers(store)


def test_blobs_are_read_only_files_below_their_first_digits(store):
    digest = store.put_bytes(b"x")
    path = store.root / "blobs" / "sha256" / digest[:2] / digest
    assert path == store.blob_path(digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_uncommitted_writer_leaves_nothing(store):
    with store.writer() as out:
        out.path.write_bytes(b"half")
    assert not leftovers(store)
    assert store.usage()["blobs"]["count"] == 0


def test_failed_writer_leaves_nothing(store):
    def fail():
        with store.writer() as out:
            out.path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not leftovers(store)


def test_missing_blobs(store):
    digest = hashlib.sha256(b"never stored").hexdigest()
    assert not store.has_blob(digest)
    for ask in (store.read_bytes, store.blob_path, store.blob_size):
        with pytest.raises(MissingBlob) as caught:
            ask(digest)
        assert caught.value.fix


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "A" * 64, "g" * 64])
def test_only_digests_name_blobs(store, name):
    with pytest.raises(ValueError):
        store.has_blob(name)


def test_wrong_source_is_the_callers_error(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "nowhere")


def test_putting_again_repairs_a_truncated_blob(store):
    digest = store.put_bytes(b"content")
    path = store.blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"cont")
    assert store.put_bytes(b"content") == digest
    assert store.read_bytes(digest) == b"content"


def test_putting_again_repairs_a_missing_blob(store):
    digest = store.put_bytes(b"content")
    store.blob_path(digest).unlink()
    store.put_bytes(b"content")
    assert store.read_bytes(digest) == b"content"


def test_another_opening_sees_the_blob(store):
    digest = store.put_bytes(b"shared")
    assert Store.open(store.root, create=False).read_bytes(digest) == b"shared"
