"""`guda score` with a resident process: the same as without, and quicker."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from guda_cli.view import handing_over
from guda_cli.view.agreed import SOCKET
from guda_cli.view.client import mine, store_of
from tests.view.conftest import Ran, Viewed, copied, end, run, view
from tests.workflow import processes
from tests.workflow.fixtures import flip, here

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the resident process needs Linux")
pytestmark = linux


@pytest.fixture
def alone(trained: Path, surroundings: dict[str, str], tmp_path: Path) -> Path:
    """The same folder without a resident process."""
    return copied(trained, tmp_path / "alone")


def without(folder: Path, viewed: Viewed, *args: str, stdin: bytes = b"") -> Ran:
    """What a command gives that works by itself, in a process that has loaded the packages or a new one."""
    if stdin:
        found = run(folder, args, viewed.environment, stdin)
        assert not found.there
        return found
    code, done = processes.start(folder, *args, **viewed.environment).wait()
    return Ran(code, done.stdout.encode(), done.stderr.encode(), there=False)


def told(ran: Ran) -> Ran:
    """Without the lines on progress and the seconds of plans, which hang on the machine."""
    lines = [line for line in ran.err.splitlines(True) if not re.match(rb"\w+: \d+/\d+ \w+", line)]
    return dataclasses.replace(ran, err=b"".join(lines), out=re.sub(rb" +\d+\.\d s\b", b" s", ran.out))


ASKED = [
    ["score", "q"],
    ["score", "new/0.png"],
    ["score", "new/1.png", "--json"],
    ["score", "new/2.png", "new/1.png", "--csv", "-q"],
    ["score", "new/3.png", "--method", "guda,similarity", "--top", "2"],
    ["score", "new/6.png", "--dry-run"],
    ["score", "q/0000", "--json"],
    ["score", "q", "--grid", "nonsense"],
    ["score", "--help"],
    ["score", "-", "--json"],
]


def test_the_same_bytes_as_without(viewed: Viewed, alone: Path) -> None:
    for args in ASKED:
        stdin = b"new/4.png\nq/00000.png\n" if "-" in args else b""
        mine, theirs = without(alone, viewed, *args, stdin=stdin), viewed.run(*args, stdin=stdin)
        assert theirs.there, args
        assert told(theirs).err == told(mine).err, args
        assert told(theirs).out.decode() == told(mine).out.decode(), args
        assert theirs.code == mine.code, args


def test_what_it_says_of_who_did_it(viewed: Viewed) -> None:
    """Provenance names the client's command."""
    viewed.run("score", "new/5.png", "-q", "--seed", "7")
    newest = list(here(viewed.folder / ".guda").records("score"))[-1]
    assert newest.provenance["argv"] == ["guda", "score", "new/5.png", "-q", "--seed", "7"]


def test_only_its_owner_reaches_it(viewed: Viewed) -> None:
    assert stat.S_IMODE(viewed.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(viewed.socket.parent.stat().st_mode) == 0o700
    assert mine(str(viewed.socket.parent))
    os.chmod(viewed.socket.parent, 0o755)  # noqa: PTH101
    assert not mine(str(viewed.socket.parent)), "a folder that others read may not be trusted"
    os.chmod(viewed.socket.parent, 0o700)  # noqa: PTH101


def test_another_guda_works_by_itself(viewed: Viewed) -> None:
    for more in ({"GUDA_RESIDENT": "0"}, {"GUDA_BATCH_SIZE": "3"}, {"OMP_NUM_THREADS": "2"}):
        assert not viewed.run("score", "--help", **more).there, more
    assert viewed.run("score", "q/00000.png", NO_COLOR="1", COLUMNS="70").there


def test_widths_and_streams_are_the_clients(viewed: Viewed, alone: Path) -> None:
    narrow = {**viewed.environment, "COLUMNS": "60"}
    mine = run(alone, ["score", "q/00001.png"], narrow)
    assert told(viewed.run("score", "q/00001.png", COLUMNS="60")) == told(mine)
    code = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], stdout=open('/dev/full', 'w')))"
    for folder in (viewed.folder, alone):
        full = subprocess.run(
            [sys.executable, "-c", code, sys.executable, "-m", "guda_cli", "score", "q/00000.png"],
            cwd=folder, env=viewed.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert full.returncode == 3
        assert "cannot write to standard output" in full.stderr


def test_a_reader_that_goes_away(viewed: Viewed) -> None:
    with viewed.start("score", "q", "--json") as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait(60) == 141


def test_what_has_changed_is_noticed(viewed: Viewed, alone: Path) -> None:
    """Another current recipe, and a damaged model: told and made again as without."""
    before = viewed.run("score", "q/00002.png", "--json", "-q")
    assert before.there
    for folder in (viewed.folder, alone):
        for args in (["unlearn", "--all", "--set", "unlearn.steps=6"], ["train", "--set", "unlearn.steps=6"]):
            assert without(folder, viewed, *args).code == 0
    after = viewed.run("score", "q/00002.png", "--json", "-q")
    assert after.out != before.out
    assert told(after) == told(without(alone, viewed, "score", "q/00002.png", "--json", "-q"))
    for folder in (viewed.folder, alone):
        store = here(folder / ".guda")
        flip(store, next(store.records("train")).outputs["weights"])
    again = viewed.run("score", "new/6.png", "--json")
    assert b"quarantined" in again.err
    assert again.there
    assert told(again) == told(without(alone, viewed, "score", "new/6.png", "--json"))


def test_ctrl_c_ends_the_command_and_not_the_process(viewed: Viewed) -> None:
    process = viewed.start("score", "q", "--draws", "4000", "--seed", "3")
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted; state saved" in err
    assert b"Traceback" not in err
    with viewed.start("score", "q", "--draws", "4000", "--seed", "3") as gone:
        time.sleep(1)
        gone.kill()
    assert viewed.run("score", "q/00003.png").there
    leases, patience = viewed.folder / ".guda" / "leases", time.monotonic() + 30
    while list(leases.glob("*.json")) and time.monotonic() < patience:  # its fork ends in its own time
        time.sleep(0.1)
    assert not list(leases.glob("*.json")), "the fork of a lost client goes on"


def test_who_asks_nonsense_is_not_served(viewed: Viewed) -> None:
    """And nothing is begun that the client does not know of."""
    for data in (b"", b"\0\0\0\4nope", b"\xff\xff\xff\xff", os.urandom(100)):
        with handing_over.connect(str(viewed.socket.parent)) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # it did not even read on
                assert link.recv(1) == b""
    assert viewed.run("score", "q/00000.png").there


def test_it_may_be_killed_and_comes_to_an_end(
    trained: Path, surroundings: dict[str, str], tmp_path: Path
) -> None:
    folder = copied(trained, tmp_path / "a folder with a long name" / ("x" * 120) / "y")
    found = view(folder, surroundings)
    assert found.run("score", "q/00000.png").there
    os.kill(found.resident, signal.SIGKILL)
    assert found.socket.exists()
    killed = found.run("score", "q/00000.png", "--dry-run")
    assert (killed.code, killed.there) == (0, False)
    assert end(found) == 0
    assert "Traceback" not in (folder / "view.err").read_text()
    assert not list(Path(tempfile.gettempdir()).glob("guda-view-*/*.png"))


def test_nobody_uses_anothers_socket(tmp_path: Path) -> None:
    """A socket that does not answer, a file, and a folder through a link."""
    folder = tmp_path / "resident"
    folder.mkdir(mode=0o700)
    assert not mine(str(folder))
    (folder / SOCKET).touch(mode=0o600)
    assert not mine(str(folder))
    (folder / SOCKET).unlink()
    with socket.socket(socket.AF_UNIX) as quiet:
        quiet.bind(str(folder / SOCKET))
        (folder / SOCKET).chmod(0o600)
        assert mine(str(folder))
        with pytest.raises(OSError, match="refused"):
            handing_over.connect(str(folder))
    (tmp_path / "link").symlink_to(folder)
    assert not mine(str(tmp_path / "link"))


def test_the_store_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".guda").mkdir()
    (tmp_path / ".guda" / "format.json").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert store_of(["score", "x"]) == str(tmp_path / ".guda")
    monkeypatch.setenv("GUDA_STORE", "elsewhere")
    assert store_of(["score", "x"]) == "elsewhere"
    assert store_of(["score", "--store", "a", "x", "--store=b"]) == "b"
