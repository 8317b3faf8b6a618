"""What lies around `guda view`: other users, folders with odd files, other limits, signals."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from guda_cli.view import handing_over
from guda_cli.view.agreed import FOLDER, SOCKET
from guda_cli.view.neighbours import HERE, foreign, user_of
from guda_cli.view.worker import Worker, started
from tests.view.conftest import PATIENCE, Viewed, command, copied, end, view

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="all of this is Linux's")
NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
MODULE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@contextlib.contextmanager
def connected(family: int, host: str) -> Iterator[tuple[int, str, int]]:
    """A connection to this machine: the port of one end, host and port of the other."""
    with socket.create_server((HERE, 0)) as server, socket.socket(family) as link:
        port = server.getsockname()[1]
        link.connect((host, port))
        accepted, (other, from_port) = server.accept()
        with accepted:
            yield port, other, from_port


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, HERE), (socket.AF_INET6, f"::ffff:{HERE}")], ids=["4", "4 in 6"]
)
def test_who_is_at_the_other_end(family: int, host: str) -> None:
    try:
        with connected(family, host) as found:
            assert user_of(*found) == os.geteuid()
            assert not foreign(*found)
    except OSError as err:
        pytest.skip(f"no such addresses here: {err}")
    assert user_of(1, HERE, 1) is None


@root
def test_another_user_is_not_served_though_the_address_is_known(viewed: Viewed) -> None:
    code = (
        "import sys, http.client; c = http.client.HTTPConnection(sys.argv[1]);"
        "c.request('GET', '/' + sys.argv[2]); r = c.getresponse(); print(r.status, r.getheader('set-cookie'))"
    )
    host, _, token = viewed.address.removeprefix("http://").partition("/")
    asked = [Path("/usr/bin/python3"), "-I", "-c", code, host, token]
    if not asked[0].exists():  # type: ignore[union-attr]
        pytest.skip("there is no Python that others may start")
    done = subprocess.run(
        asked, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout == "403 None\n"
    link = HTTPConnection(host)
    link.request("GET", f"/{token}")
    assert link.getresponse().status == 303
    link.close()


def test_no_code_is_taken_from_the_folder_it_runs_in(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the resident process, nor by the one that works on a picture of that name."""
    copied(trained, tmp_path)
    for name in ("diffusers.py", "numpy.py", "h5py.py"):
        (tmp_path / name).write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    with started(tmp_path / ".guda", "cpu") as worker:
        assert worker._loaded.wait(PATIENCE)
        assert (tmp_path / ".guda" / FOLDER / SOCKET).exists()
    code, answer = Worker(tmp_path / ".guda", "cpu", _loaded=worker._loaded).job("about", tmp_path)
    assert (code, answer["recipe"]) == (0, "tiny")
    assert not (tmp_path / "ran").exists()


def place(store: Path) -> tuple[Path, bool]:
    """Where a worker would listen, and whether `guda score` would find it there."""
    worker = Worker(store, "cpu")
    worker._folder = worker._place()
    public = worker.public
    found = worker._folder
    worker.end()
    return found, public


def test_what_others_laid_in_the_store_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / SOCKET).touch()
    (tmp_path / FOLDER).symlink_to(other)
    assert not place(tmp_path)[1]
    assert (other / SOCKET).exists(), "a file was removed through a link"
    (tmp_path / FOLDER).unlink()
    (tmp_path / FOLDER).touch()
    assert not place(tmp_path)[1]
    (tmp_path / FOLDER).unlink()
    assert place(tmp_path) == (tmp_path / FOLDER, True)
    (tmp_path / FOLDER).chmod(0o755)
    (tmp_path / FOLDER / "lock").unlink()
    (tmp_path / FOLDER / "lock").symlink_to(tmp_path / "made")
    assert not place(tmp_path)[1]
    assert not (tmp_path / "made").exists()


@root
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(mode=0o700)
    os.chown(tmp_path / FOLDER, NOBODY, NOBODY)
    assert not place(tmp_path)[1]


def test_of_two_that_start_at_once_one_has_the_store(tmp_path: Path) -> None:
    first = Worker(tmp_path, "cpu")
    first._folder = first._place()  # which does not listen yet
    assert first.public
    assert not place(tmp_path)[1]
    first.end()
    assert place(tmp_path)[1]


def test_limits_are_the_clients(viewed: Viewed) -> None:
    """Files may be no larger than the client's are allowed to be."""
    told = viewed.folder / "told-limits"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        process = command(
            viewed.folder, told, ["score", "new/7.png", "--seed", "91", "-q"], viewed.environment
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, told.read_text()) == (3, "there")
    assert b"File too large" in err


def test_what_a_script_left_running_is_not_interrupted(viewed: Viewed) -> None:
    """`guda score … &` in a script ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = viewed.start("score", "q/00001.png", "--draws", "400", "--seed", "5", "-q")
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert b"interrupted" not in err


def test_ctrl_c_while_nobody_answers(viewed: Viewed, tmp_path: Path) -> None:
    folder = tmp_path / ".guda" / FOLDER
    folder.mkdir(parents=True, mode=0o700)
    (folder.parent / "format.json").touch()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / SOCKET))
        (folder / SOCKET).chmod(0o600)
        silent.listen()
        process = command(tmp_path, tmp_path / "told", ["score", "x"], viewed.environment)
        with silent.accept()[0] as link:
            assert handing_over.received(link)["argv"][1:] == ["score", "x"]
            process.send_signal(signal.SIGINT)
            # whoever reads its streams sees their end, though what it has sent lies there still
            _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, b"interrupted\n")


def test_one_processor_is_enough(trained: Path, surroundings: dict[str, str], tmp_path: Path) -> None:
    """Calls are served while the models are read for the first time, and one right after another."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        found = view(copied(trained, tmp_path), surroundings)
        there = [found.run("score", "--help").there for _ in range(4)]
        end(found)
    finally:
        os.sched_setaffinity(0, cores)
    assert there == [True] * 4
