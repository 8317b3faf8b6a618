"""Several processes: shares of a batch add up, the chief alone saves, and no process outlives the others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from guda_cli.errors import UsageError
from guda_cli.training import distributed
from guda_cli.training.scale import Scale

ROOT = Path(__file__).parent.parent.parent
STEPS = 4


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(world: int, trouble: str = "") -> list[subprocess.Popen[str]]:
    """`launched.py` in `world` processes, the chief first."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    common |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.launched", str(STEPS), trouble]
    return [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **common, "RANK": str(r)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for r in range(world)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each; all are ended whatever happens."""
    try:
        done = []
        for process in processes:
            out, err = process.communicate(timeout=600)
            done.append((process.returncode, out, err))
        return done
    finally:
        for process in processes:
            process.kill()


def document(done: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = done
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.slow
def test_processes_end_where_one_process_ends() -> None:
    """Five processes for batches of four: one has no entry at all."""
    [alone] = [document(done) for done in finish(start(1))]
    for world in (2, 5):
        together = [document(done) for done in finish(start(world))]
        assert all(each == together[0] for each in together), "all processes hold the same bits"
        assert together[0]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(
                torch.tensor(together[0]["weights"][name]), torch.tensor(value), rtol=1e-5, atol=1e-6
            )
    assert alone["weights"]["unused"] == [1.0, 1.0], "no gradient anywhere: not even decayed"


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["die", "fail"])
def test_when_one_ends_the_chief_saves_and_ends(trouble: str) -> None:
    chief, other = finish(start(2, trouble))
    found = document(chief)
    assert found["saved"] == [2]
    assert "another process" in found["lost"]
    assert found["weights"] == {}
    assert other[0] == (9 if trouble == "die" else 1)
    assert ("something is wrong here" in other[2]) == (trouble == "fail")


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Any:
    def join(**environment: str) -> distributed.Launch | None:
        for name in (*distributed.NEEDED, "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return distributed.join()

    yield join
    monkeypatch.undo()
    distributed.join()


PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "3"}


def test_shares_are_every_entry_once(launch: Any) -> None:
    shares = []
    for r in range(3):
        launch(**PLACE, RANK=str(r), LOCAL_RANK=str(r % 2))
        assert (distributed.rank(), distributed.world(), distributed.local_rank()) == (r, 3, r % 2)
        shares.append([part.tolist() for part in Scale(accumulation=2).parts(8)])
    assert shares == [[[0, 3], [6]], [[1, 4], [7]], [[2], [5]]]
    launch()
    assert [part.tolist() for part in Scale(accumulation=3).parts(8)] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_what_the_chief_does_alone_is_not_shared(launch: Any) -> None:
    launch(**PLACE, RANK="0")
    with distributed.leading("key", shared=False):
        assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.world() == 3


def test_one_process_is_no_launch(launch: Any) -> None:
    assert launch() is None
    assert launch(WORLD_SIZE="1", RANK="0") is None
    assert (distributed.rank(), distributed.world(), distributed.local_rank()) == (0, 1, None)


@pytest.mark.parametrize("changes", [{"RANK": ""}, {"MASTER_PORT": None}, {"WORLD_SIZE": "many"}])
def test_half_a_launch_is_refused(launch: Any, changes: dict[str, str | None]) -> None:
    given = {**PLACE, "RANK": "0", **changes}
    with pytest.raises(UsageError, match="several processes"):
        launch(**{name: value for name, value in given.items() if value is not None})
