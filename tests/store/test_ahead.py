"""Digests of large files are worked out once a process, beside other work, and still find damage."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from guda_cli.store import CorruptBlob, MissingBlob, Store
from guda_cli.store.ahead import Digests
from guda_cli.store.files import hash_file, write_pieces
from tests.store.inside import blob_file

LARGE = bytes(range(256)) * (3 * 2**12)  # 3 MiB


class Hashing:
    """`hash_file`, which says what it hashed and waits where it is told to."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def __call__(self, path: Path) -> str:
        self.begun.set()
        assert self.go.wait(10)
        self.done[path.name] += 1
        return hash_file(path)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


def test_each_file_is_hashed_once(files: list[Path]) -> None:
    hashing = Hashing()
    digests = Digests(hashing)
    for path in files[:2] * 2:
        digests.begin(path)
    for path in files * 2:
        assert digests.of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert hashing.done == {"a": 1, "b": 1, "c": 1}


def test_who_asks_waits_for_what_is_at_work_and_does_itself_what_is_not(files: list[Path]) -> None:
    hashing = Hashing()
    digests = Digests(hashing)
    hashing.go.clear()
    digests.begin(files[0])
    assert hashing.begun.wait(10)
    digests.begin(files[1])
    found: list[str] = []
    waiting = threading.Thread(target=lambda: found.append(digests.of(files[0])))
    waiting.start()
    assert not found
    hashing.go.set()
    assert digests.of(files[1]) == hash_file(files[1])
    waiting.join(10)
    assert found == [hash_file(files[0])]
    assert hashing.done == {"a": 1, "b": 1}


def test_a_changed_file_is_hashed_again(files: list[Path]) -> None:
    digests = Digests(hash_file)
    before = digests.of(files[0])
    files[0].write_bytes(b"b" * 1000)
    os.utime(files[0], ns=(1, 1))
    assert digests.of(files[0]) == hash_file(files[0]) != before


def test_an_error_shows_when_it_is_asked_for(tmp_path: Path) -> None:
    digests = Digests(hash_file)
    digests.begin(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        digests.of(tmp_path / "none")


def test_a_flipped_bit_is_found_though_hashing_began_before(store: Store) -> None:
    digest = store.put_bytes(LARGE)
    path = blob_file(store, digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(2**21)
        file.write(b"\xff")
    again = Store.open(store.root)
    again.begin_check(digest)
    with pytest.raises(CorruptBlob):
        again.opened(digest, Path.stat)
    assert not path.exists()
    with pytest.raises(MissingBlob):
        again.opened(digest, Path.stat)


def test_verify_hashes_what_was_hashed_before(store: Store) -> None:
    """Bits that rot in a file leave its times as they were."""
    digest = store.put_bytes(LARGE)
    path = store.blob_path(digest)
    times = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"\xff")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [entry.digest for entry in store.verify().corrupt] == [digest]


def test_pieces_are_the_bytes_in_a_row(store: Store, tmp_path: Path) -> None:
    pieces = [b"", b"abc", bytearray(LARGE), memoryview(LARGE)[5:-5], memoryview(b"z")]
    whole = b"".join(bytes(piece) for piece in pieces)
    assert write_pieces(tmp_path / "x", pieces) == hashlib.sha256(whole).hexdigest()
    assert (tmp_path / "x").read_bytes() == whole
    digest = store.put_pieces(pieces)
    assert store.read_bytes(digest) == whole
    assert store.put_bytes(whole) == digest


def test_pieces_that_fail_leave_nothing(store: Store) -> None:
    def pieces() -> object:
        yield LARGE
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.put_pieces(pieces())  # type: ignore[arg-type]
    assert store.usage()["blobs"]["count"] == store.usage()["tmp"]["count"] == 0
