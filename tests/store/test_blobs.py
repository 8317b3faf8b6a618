import hashlib
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guda_cli.store import MissingBlob, Store, StoreFull
from tests.store.inside import blob_file


def leftovers(store):
    return list((store.root / "tmp").iterdir())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=5000))
def test_bytes_come_back(store, data):
    digest = store.put_bytes(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert store.read_bytes(digest) == data
    assert blob_file(store, digest).read_bytes() == data
    assert store.blob_size(digest) == len(data)


def test_storing_twice_is_storing_once(store):
    data = bytes(range(256)) * 9000
    assert store.put_bytes(data) == store.put_bytes(data)
    assert store.usage()["blobs"]["count"] == 1
    assert not leftovers(store)


def test_blobs_are_read_only_files_below_their_first_digits(store):
    digest = store.put_bytes(b"x")
    path = store.root / "blobs" / "sha256" / digest[:2] / digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_missing_blobs(store):
    digest = hashlib.sha256(b"never stored").hexdigest()
    assert not store.has_blob(digest)
    for ask in (store.read_bytes, store.blob_size):
        with pytest.raises(MissingBlob) as caught:
            ask(digest)
        assert caught.value.fix


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "A" * 64, "g" * 64])
def test_only_digests_name_blobs(store, name):
    with pytest.raises(ValueError):
        store.has_blob(name)


def test_putting_again_repairs_a_truncated_blob(store):
    digest = store.put_bytes(b"content")
    path = blob_file(store, digest)
    path.chmod(0o644)
    path.write_bytes(b"cont")
    assert store.put_bytes(b"content") == digest
    assert store.read_bytes(digest) == b"content"


def test_putting_again_repairs_a_missing_blob(store):
    digest = store.put_bytes(b"content")
    blob_file(store, digest).unlink()
    store.put_bytes(b"content")
    assert store.read_bytes(digest) == b"content"


def test_another_opening_sees_the_blob(store):
    digest = store.put_bytes(b"shared")
    assert Store.open(store.root, create=False).read_bytes(digest) == b"shared"


def test_what_is_written_to_a_file_is_a_blob_as_any_other(store):
    digest = store.put_written(lambda path: path.write_bytes(b"long" * 9000) and None)
    assert digest == store.put_bytes(b"long" * 9000)
    assert store.blob_path(digest) == blob_file(store, digest)
    assert stat.S_IMODE(blob_file(store, digest).stat().st_mode) == 0o444
    assert store.put_written(lambda path: path.write_bytes(b"long" * 9000) and None) == digest
    assert not leftovers(store)


def test_a_write_that_fails_leaves_nothing(store):
    def fail(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreFull):
        store.put_written(fail)
    assert not leftovers(store)
    assert store.usage()["blobs"]["count"] == 0
