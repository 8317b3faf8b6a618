"""Files from a web address or from disk, checked by their digest before they get their name.

A download has a bounded size and time and goes on where it was cut. Only http and https are spoken.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from guda_cli import typed_number
from guda_cli.errors import DataError
from guda_cli.phrases import human_bytes
from guda_cli.wanted_file import Wanted

Progress = Callable[[int], None]
"""Hears how many bytes of a file are there."""

CHUNK = 1 << 16
STALL = 30.0  # seconds without a byte
LONGEST = 4 * 3600.0  # seconds a file
ATTEMPTS = 3
SLACK = 1 << 12  # bytes by which another packing of the same content may be larger


def is_address(text: str) -> bool:
    """Whether `text` is a web address and no path."""
    return text.lower().startswith(("http://", "https://"))


def place_of(wanted: Wanted, source: str, *, alone: bool) -> str:
    """Where the file lies at `source`: a file of its own (`alone`), or a folder or address to look below."""
    if is_address(source):
        if alone and not source.endswith("/"):
            return source
        return f"{source.rstrip('/')}/{quote(wanted.remote or wanted.name, safe='/@')}"
    path = Path(source).expanduser()
    return str(path if alone and not path.is_dir() else path / wanted.name)


def fits(path: Path, wanted: Wanted) -> bool:
    """Whether the file at `path` is the wanted one."""
    if not path.is_file() or path.stat().st_size > wanted.size + SLACK:
        return False
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256:
            return True
    return bool(wanted.unpacked) and _unpacked(path) == wanted.unpacked


def _unpacked(path: Path) -> str:
    """SHA-256 of what a .gz holds; "" for something else."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest()


def bring(wanted: Wanted, place: str, folder: Path, progress: Progress, *, longest: float = LONGEST) -> Path:
    """The file in `folder`, from the address or path `place`.

    DataError where it cannot be had, or is another file. What came of a cut download stays beside its place,
    hidden, and the next call goes on there. An intact file is not fetched again; the caller has seen to it
    that nothing else stands there.
    """
    target, part = folder / wanted.name, folder / f".{wanted.name}.part"
    if fits(target, wanted):
        progress(wanted.size)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_address(place):
            _download(wanted, place, part, progress, time.monotonic() + longest)
        else:
            _copy(wanted, Path(place), part, progress)
        if not fits(part, wanted):
            with part.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            part.unlink()
            raise DataError(
                f"what lies at {place} is not {wanted.name}",
                why=f"its SHA-256 is {found[:16]}..., not {wanted.sha256[:16]}...",
            )
        part.replace(target)
    except OSError as err:
        raise DataError(f"cannot write {target}", why=err.strerror or str(err)) from None
    return target


def _copy(wanted: Wanted, path: Path, part: Path, progress: Progress) -> None:
    try:
        source = path.open("rb")
    except OSError as err:
        raise DataError(f"cannot read {path}", why=err.strerror or str(err)) from None
    with source, part.open("wb") as out:
        while chunk := source.read(CHUNK):
            out.write(chunk)
            if out.tell() > wanted.size + SLACK:
                break  # another file, which its digest will say
            progress(out.tell())


def _download(wanted: Wanted, url: str, part: Path, progress: Progress, deadline: float) -> None:
    """Fill `part`, going on where a connection is cut; a server that cannot is read from the start."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _attempt(wanted, url, part, progress, deadline)
            return
        except urllib.error.HTTPError as err:
            err.close()
            if err.code == 416 and before:  # nothing lies beyond what is there
                part.unlink()
                continue
            raise DataError(f"cannot fetch {url}", why=f"the server says {err.code} {err.reason}") from None
        except _Cut as err:
            if attempt == ATTEMPTS:
                there = part.stat().st_size if part.exists() else 0
                came = f" after {human_bytes(there)} of {human_bytes(wanted.size)}" if there else ""
                later = "; the same command goes on there" if there else ""
                raise DataError(f"cannot fetch {url}", why=f"{err}{came}{later}") from None


class _Cut(Exception):  # noqa: N818 - an event
    """A connection that ended, stalled, or was never made; another attempt may do."""


def _attempt(wanted: Wanted, url: str, part: Path, progress: Progress, deadline: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= wanted.size:
        have = 0
    headers = {"User-Agent": "guda", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    try:
        with _opener().open(urllib.request.Request(url, headers=headers), timeout=STALL) as response:
            begins = _begins(response, have)
            _check_length(response, wanted, begins, url)
            with part.open("r+b" if begins else "wb") as out:
                out.seek(begins)
                out.truncate()
                _receive(response, out, wanted, progress, deadline, url)
    except (urllib.error.HTTPError, DataError):
        raise
    except urllib.error.URLError as err:
        raise _Cut(str(getattr(err.reason, "strerror", None) or err.reason)) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as err:
        raise _Cut(str(err) or type(err).__name__) from None
    except ValueError as err:
        raise DataError(f"cannot fetch {url}", why=str(err)) from None


def _begins(response: Any, have: int) -> int:
    """At which byte of the file the answer begins."""
    said = response.headers.get("Content-Range", "")
    return have if response.status == 206 and said.startswith(f"bytes {have}-") else 0


def _check_length(response: Any, wanted: Wanted, begins: int, url: str) -> None:
    said = typed_number.whole(response.headers.get("Content-Length", ""))
    if said is not None and begins + said > wanted.size + SLACK:
        raise _too_long(wanted, url)


def _receive(
    response: Any, out: IO[bytes], wanted: Wanted, progress: Progress, deadline: float, url: str
) -> None:
    while chunk := response.read1(CHUNK):  # what one packet brings: a slow server cannot outlast the deadline
        out.write(chunk)
        if out.tell() > wanted.size + SLACK:
            out.truncate(0)
            raise _too_long(wanted, url)
        if time.monotonic() > deadline:
            raise DataError(f"cannot fetch {url}", why="it takes too long; the same command goes on there")
        progress(out.tell())
    if out.tell() < wanted.size and not (wanted.unpacked and response.length == 0):
        raise _Cut("the connection ended")


def _too_long(wanted: Wanted, url: str) -> DataError:
    return DataError(
        f"what lies at {url} is not {wanted.name}", why=f"it is longer than {human_bytes(wanted.size)}"
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and from https to nothing less."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """A DataError for any other address."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after != "https"):
            raise DataError(
                f"cannot fetch {req.full_url}", why=f"it leads to {newurl}, which is not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Without what opens local files and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
