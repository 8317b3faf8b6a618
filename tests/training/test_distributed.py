"""Several processes: shares of a batch add up, the chief alone saves, and no process outlives the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from guda_cli.errors import UsageError
from guda_cli.training import distributed
from guda_cli.training.scale import Scale
from tests.workflow import processes

STEPS = 4
needs_fork = pytest.mark.skipif(os.name != "posix", reason="needs fork")


def finish(world: int, folder: Path, trouble: str = "") -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of `launched.py` in each of `world` processes, the chief first."""
    started = processes.launch(world, folder, "tests.training.launched", str(STEPS), trouble)
    return [(code, *done) for code, done in [process.wait() for process in started]]


def document(done: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = done
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@needs_fork
def test_processes_end_where_one_process_ends(tmp_path: Path) -> None:
    """Five processes for batches of four: one has no entry at all."""
    [alone] = [document(done) for done in finish(1, tmp_path)]
    for world in (2, 5):
        together = [document(done) for done in finish(world, tmp_path)]
        assert all(each == together[0] for each in together), "all processes hold the same bits"
        assert together[0]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(
                torch.tensor(together[0]["weights"][name]), torch.tensor(value), rtol=1e-5, atol=1e-6
            )
    assert alone["weights"]["unused"] == [1.0, 1.0], "no gradient anywhere: not even decayed"


@needs_fork
@pytest.mark.parametrize("trouble", ["die", "fail"])
def test_when_one_ends_the_chief_saves_and_ends(tmp_path: Path, trouble: str) -> None:
    chief, other = finish(2, tmp_path, trouble)
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
