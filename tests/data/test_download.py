"""Downloads from a real server: right, wrong, cut, endless, slow, redirected and missing files."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from guda_cli import download
from guda_cli.download import Wanted, bring, fits, place_of
from guda_cli.errors import DataError

# Sockets of connections that the server below is told to break are left to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

BODY = bytes(range(256)) * 2000  # 512 KB
WANTED = Wanted("x.bin", len(BODY), hashlib.sha256(BODY).hexdigest())
Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A server on this machine whose every path is a function."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []  # paths, and their Range
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers.get("Range")))
                answer = site.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                    return
                try:
                    answer(self)
                except OSError:  # the client went away, which is what is wanted of it
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str = "/x.bin") -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def whole(data: bytes, *, length: int | None = None, ranges: bool = False, cut: int | None = None) -> Answer:
    """Sends `data`, from where it was asked if `ranges`; ends after `cut` bytes of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranges else 0
        handler.send_response(206 if first else 200)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - first if length is None else length))
        handler.end_headers()
        handler.wfile.write(data[first : None if cut is None else first + cut])

    return answer


def fetch(site: Site, folder: Path, wanted: Wanted = WANTED, path: str = "/x.bin") -> Path:
    return bring(wanted, site.url(path), folder, lambda _: None)


def test_the_right_file(site: Site, tmp_path: Path) -> None:
    site.answers["/x.bin"] = whole(BODY)
    heard: list[int] = []
    found = bring(WANTED, site.url(), tmp_path / "new", heard.append)
    assert found.read_bytes() == BODY
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.bin"]
    assert heard == sorted(heard)
    assert heard[-1] == len(BODY)
    fetch(site, tmp_path / "new")
    assert len(site.asked) == 1, "what is there is not fetched again"


def test_another_file(site: Site, tmp_path: Path) -> None:
    site.answers["/x.bin"] = whole(BODY[:-1] + b"?")
    with pytest.raises(DataError, match=r"is not x\.bin") as err:
        fetch(site, tmp_path)
    assert "SHA-256" in err.value.why
    assert list(tmp_path.iterdir()) == [], "nothing is left that a next call would go on with"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_goes_on(site: Site, tmp_path: Path, ranges: bool) -> None:
    def first(handler: BaseHTTPRequestHandler) -> None:
        site.answers["/x.bin"] = whole(BODY, ranges=ranges)
        whole(BODY, cut=100_000)(handler)

    site.answers["/x.bin"] = first
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert [asked for _, asked in site.asked] == [None, "bytes=100000-"]


def test_a_connection_that_is_always_cut(site: Site, tmp_path: Path) -> None:
    site.answers["/x.bin"] = whole(BODY, ranges=True, cut=1000)
    with pytest.raises(DataError) as err:
        fetch(site, tmp_path)
    assert "the same command goes on there" in err.value.why
    assert [path.name for path in tmp_path.iterdir()] == [".x.bin.part"]
    site.answers["/x.bin"] = whole(BODY, ranges=True)
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert site.asked[-1][1] == "bytes=3000-"


def test_an_endless_body(site: Site, tmp_path: Path) -> None:
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))
            sent.append(1 << 16)

    site.answers["/x.bin"] = endless
    with pytest.raises(DataError) as err:
        fetch(site, tmp_path)
    assert "longer than 500" in err.value.why
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


def test_a_body_that_says_it_is_too_long(site: Site, tmp_path: Path) -> None:
    site.answers["/x.bin"] = whole(BODY, length=10**12)
    with pytest.raises(DataError, match="is not x"):
        fetch(site, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_drips(site: Site, tmp_path: Path) -> None:
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    site.answers["/x.bin"] = drip
    began = time.monotonic()
    with pytest.raises(DataError) as err:
        bring(WANTED, site.url(), tmp_path, lambda _: None, longest=0.3)
    stop.set()
    assert "too long" in err.value.why
    assert time.monotonic() - began < 10


def test_a_server_that_says_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.bin"
        with pytest.raises(DataError, match="cannot fetch"):
            bring(WANTED, address, tmp_path, lambda _: None)


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_lead_to_the_web_alone(site: Site, tmp_path: Path, where: str) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", where)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.answers["/x.bin"] = redirect
    with pytest.raises(DataError, match="cannot fetch") as err:
        fetch(site, tmp_path)
    assert "not followed" in err.value.why or "not allowed" in err.value.why
    assert list(tmp_path.iterdir()) == []


def test_redirects_to_the_web_are_followed(site: Site, tmp_path: Path) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/there")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.answers |= {"/x.bin": redirect, "/there": whole(BODY)}
    assert fetch(site, tmp_path).read_bytes() == BODY
    site.answers["/there"] = redirect  # a circle
    with pytest.raises(DataError, match="cannot fetch"):
        fetch(site, tmp_path / "other")


def test_a_missing_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError) as err:
        fetch(site, tmp_path)
    assert "404" in err.value.why
    with pytest.raises(DataError, match="cannot fetch"):
        bring(WANTED, "http://127.0.0.1:1/x.bin", tmp_path, lambda _: None)
    with pytest.raises(DataError, match="cannot fetch"):
        bring(WANTED, "http://[broken/x.bin", tmp_path, lambda _: None)


def test_a_part_that_is_no_part_of_it(site: Site, tmp_path: Path) -> None:
    """Left by another version: the digest tells, and the next call begins anew."""
    (tmp_path / ".x.bin.part").write_bytes(b"?" * 1000)
    site.answers["/x.bin"] = whole(BODY, ranges=True)
    with pytest.raises(DataError, match="is not x"):
        fetch(site, tmp_path)
    assert fetch(site, tmp_path).read_bytes() == BODY
    (tmp_path / ".y.part").write_bytes(BODY + BODY)  # longer than the file
    other = Wanted("y", WANTED.size, WANTED.sha256)
    assert fetch(site, tmp_path, other).read_bytes() == BODY


def test_another_packing_of_the_same(site: Site, tmp_path: Path) -> None:
    packed, again = gzip.compress(BODY, 9, mtime=1), gzip.compress(BODY, 6, mtime=2)
    assert packed != again
    wanted = Wanted("x.gz", len(packed), hashlib.sha256(packed).hexdigest(), unpacked=WANTED.sha256)
    site.answers["/x.gz"] = whole(again)
    assert fetch(site, tmp_path, wanted, "/x.gz").read_bytes() == again
    (tmp_path / "x.gz").write_bytes(again[:-9])
    assert not fits(tmp_path / "x.gz", wanted)
    (tmp_path / "x.gz").write_bytes(gzip.compress(BODY[1:]))
    assert not fits(tmp_path / "x.gz", wanted)


def test_from_disk(tmp_path: Path) -> None:
    (tmp_path / "have").mkdir()
    (tmp_path / "have" / "x.bin").write_bytes(BODY)
    for source, alone in (
        (tmp_path / "have", False),
        (tmp_path / "have", True),
        (tmp_path / "have/x.bin", True),
    ):
        assert place_of(WANTED, str(source), alone=alone) == str(tmp_path / "have/x.bin")
    found = bring(WANTED, str(tmp_path / "have/x.bin"), tmp_path / "to", lambda _: None)
    assert found.read_bytes() == BODY
    for wrong, message in (
        (tmp_path / "none", "cannot read"),
        (tmp_path, "cannot read"),
        (Path(__file__), "is not"),
    ):
        with pytest.raises(DataError, match=message):
            bring(WANTED, str(wrong), tmp_path / "other", lambda _: None)
    with pytest.raises(DataError, match="is not x"):
        bring(WANTED, "/dev/zero", tmp_path / "other", lambda _: None)
    assert not (tmp_path / "other" / "x.bin").exists()


def test_addresses() -> None:
    one = Wanted("a b.gz", 1, "", remote="@s/p/-/p.tgz")
    assert place_of(one, "https://r/", alone=False) == "https://r/@s/p/-/p.tgz"
    assert place_of(Wanted("a b.gz", 1, ""), "https://r", alone=False) == "https://r/a%20b.gz"
    assert place_of(one, "https://r/other.gz", alone=True) == "https://r/other.gz"
