"""The scripts that measure speed run, at small sizes on the CPU, and put right figures beside each other."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import ROOT, load

gpu = load("gpu")
run = load("run")
# as the scripts import them
bare, networks, rows, timing = (__import__(name) for name in ("bare", "gpu_networks", "gpu_rows", "timing"))


# torch's compiler of what diffusers wrote
pytestmark = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")


@pytest.fixture(autouse=True)
def flags_as_before() -> Iterator[None]:
    """What a bare form asks of torch it puts back."""
    before = flags()
    yield
    assert flags() == before


def flags() -> tuple[Any, ...]:
    import torch

    cudnn = torch.backends.cudnn
    precision, mode = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()
    return precision, mode, cudnn.allow_tf32, cudnn.benchmark


def section(
    name: str, measure: Callable[[Any], None], seconds: float = 600.0, small: bool = True
) -> list[Any]:
    found: list[Any] = []
    measure(rows.Out(name, "cpu", small, time.monotonic() + seconds, found.append))
    return list(rows.ratios(found))


# -- rows -------------------------------------------------------------------------------------------


def test_a_rate_is_put_beside_the_fastest_bare_one_of_its_group() -> None:
    given = [
        rows.Row("s", "guda", 30.0, "steps/s", "train"),
        rows.Row("s", "bare", 20.0, "steps/s", "train", bare=True),
        rows.Row("s", "bare, compiled", 40.0, "steps/s", "train", bare=True),
        rows.Row("s", "guda, another", 30.0, "steps/s", "unlearn"),
        rows.Row("other", "guda", 10.0, "steps/s", "train"),
        rows.Row("s", "failed", None, "steps/s", "train", note="failed: x"),
        rows.Row("s", "seconds", 2.0, "s"),
    ]
    found = rows.ratios(given)
    assert [row.ratio for row in found] == [0.75, 0.5, 1.0, None, 0.25, None, None]
    printed = rows.table(found)
    assert "30 steps/s   0.75" in printed[0]
    assert printed[5].endswith("failed: x")


def test_a_row_that_fails_says_why_and_the_next_is_measured() -> None:
    def broken() -> float:
        raise MemoryError("40 GB\nmore lines")

    def measure(out: Any) -> None:
        assert out.row("one", broken, "s") is None
        assert out.row("two", lambda: 2.0, "s") == 2.0

    found = section("any", measure)
    assert [(row.value, row.note) for row in found] == [(None, "failed: MemoryError: 40 GB"), (2.0, "")]
    assert [row.failed for row in found] == [True, False]


def test_what_there_is_no_time_for_is_left_out() -> None:
    def measure(out: Any) -> None:
        out.row("long", lambda: pytest.fail("measured"), "s", needs=45.0)

    [row] = section("any", measure, seconds=10.0, small=False)
    assert (row.value, row.note, row.failed) == (None, "left out: it needs 45 s", False)


def test_rows_come_back_from_the_process_of_a_section() -> None:
    row = rows.Row("s", "a \u2212 b", 0.25, "s", target="0.9", note="n")
    assert rows.of_line(rows.to_line(row)) == row
    assert rows.of_line("something that a library printed") is None
    assert rows.of_line('{"other": 1}') is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(19600.4, "19,600"), (3.14159, "3.142"), (0.0, "0"), (2.2e-5, "0.000022"), (7.24e-8, "7.2e-8")],
)
def test_numbers(value: float, text: str) -> None:
    assert rows.number(value) == text


# -- clock ------------------------------------------------------------------------------------------


def test_what_is_done_once_a_run_is_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def loop(steps: int) -> None:
        now[0] += 5.0 + 0.25 * steps

    assert timing.step_seconds(timing.Clock("cpu"), loop, 2, 10) == 0.25


def test_the_peak_is_that_of_the_work_alone() -> None:
    held = bytearray(300 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    del held
    before = timing.process_peak(lambda: None)
    if not before:
        pytest.skip("this system does not say")
    grown = timing.process_peak(lambda: bytearray(b"x" * (100 << 20)))
    assert 0.09 < grown - before < 0.25


# -- sections ---------------------------------------------------------------------------------------


def test_scoring_is_measured_beside_every_bare_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "wide", lambda out: networks.traced(tiny()))
    monkeypatch.setattr(bare, "FORMS", bare.FORMS[::2])
    assert [form.compiled for form in bare.FORMS] == [False, False, True]
    found = section("scoring", networks.scoring)
    assert not [row.note for row in found if row.failed]
    rates = [row for row in found if row.group == "forwards cifar10"]
    assert [row.what for row in rates if row.bare] == [f"bare network, {form.name}" for form in bare.FORMS]
    assert max(row.ratio for row in rates if row.bare) == 1.0
    assert [row.what for row in rates if not row.bare] == [
        "guda, elbo.image_terms, float32", "guda, elbo.image_terms, bfloat16",
    ]  # fmt: skip


def tiny() -> Any:
    return bare.pixels("cifar10", (3, 8, 8), 4, bare.SMALL_MODEL)


def test_scoring_of_a_text_to_image_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "FORMS", bare.FORMS[:1])
    found = section("sd15", networks.scoring_sd15)
    assert not [row.note for row in found if row.failed]


def test_the_program_scores_what_the_bare_network_says() -> None:
    """Terms and forwards that are compared are of the same network, inputs of the same shape."""
    import torch

    case = tiny()
    network = case.network("cpu")
    terms = networks.scored(case, network, torch.float32, 2)()
    assert terms.shape == (2, 1, case.batch)
    with bare.forward(bare.Form("float32"), case, network, "cpu") as forward:
        said = forward()
    assert said.shape == (case.batch, *case.shape)
    x, t, _ = case.inputs(case.batch, "cpu")
    own = case.adapt(network.eval())
    with torch.inference_mode():
        assert torch.equal(own.predict(x, t + 1), said)  # the program counts t from 1


def test_steps_of_training_and_unlearning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "step_seconds", lambda clock, run, few, many: run(1) or 1.0)
    for name, measure in (("training", networks.training), ("small", networks.training_small)):
        found = section(name, measure)
        assert not [row.note for row in found if row.failed]
        groups = {row.group for row in found if row.value and not row.bare}
        assert groups == {row.group for row in found if row.value and row.bare}
        assert all(row.ratio for row in found if row.value)


def test_a_bare_step_trains_all_weights() -> None:
    import torch

    case = tiny()
    network = case.network("cpu")
    loop = bare.Loop(case, network, bare.Steps(2, average=True, teacher=True, backwards=2), "cpu")
    loop.run(2)
    moved = [not torch.equal(a, b) for a, b in zip(loop.parameters, network.parameters(), strict=True)]
    assert all(moved)
    frozen = zip(loop.teacher.parameters(), network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in frozen)


def test_terms_hardly_depend_on_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "wide", lambda out: tiny())
    found = section("packing", networks.packing)
    assert [("thirds" in row.what, "one by one" in row.what) for row in found] == [(1, 0), (0, 1)]
    assert all(row.value < 1e-5 for row in found)


# -- the command ------------------------------------------------------------------------------------


def test_sections_go_on_where_one_fails_or_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def apart(name: str, device: str, small: bool, seconds: float) -> list[Any]:
        told.append((name, seconds))
        return [rows.Row(name, "figure", 1.0, "s")] if name == "noise" else [
            rows.Row(name, "the rest", note="failed: not done in time")
        ]  # fmt: skip

    told: list[tuple[str, float]] = []
    monkeypatch.setattr(gpu, "run_apart", apart)
    out = tmp_path / "rows.json"
    code = gpu.main(["--small", "--device", "cpu", "--only", "packing,noise", "--json", str(out)])
    printed = capsys.readouterr().out
    assert code == 1
    assert [name for name, _ in told] == ["packing", "noise"]
    assert told[0][1] < told[1][1] + 1.0  # the first leaves the second its time
    assert printed.startswith(gpu.NO_GPU)
    assert "failed: not done in time" in printed
    document = json.loads(out.read_text())
    assert [row["section"] for row in document["rows"]] == ["packing", "noise"]
    assert {"torch", "commit", "threads"} <= document["machine"].keys()


def test_a_section_that_takes_too_long_is_ended() -> None:
    [row] = gpu.run_apart("training", "cpu", True, 0.3)
    assert row.note == "failed: not done after 0 s"


def test_one_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--small", "--device", "cpu",
            "--only", "noise", "--json", str(tmp_path / "rows.json"),
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "noise of 3 x 32 x 32" in done.stdout
    found = json.loads((tmp_path / "rows.json").read_text())
    assert [row["unit"] for row in found["rows"]] == ["rows/s", "rows/s"]


@pytest.mark.parametrize("args", [["--device", "cpu"], ["--only", "nothing"]])
def test_what_cannot_be_measured_is_refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main([*args, "--small"] if "--only" in args else args)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_networks_share_of_a_command() -> None:
    given = [
        rows.Row("sd15", "bare network, float32", 100.0, "forwards/s", "forwards", bare=True),
        rows.Row("sd15", "bare network, compiled", 300.0, "forwards/s", "forwards", bare=True),
        rows.Row("commands", "score four images, 100 timesteps, 3 models", 41.0, "s"),
        rows.Row("commands", "unlearn --group monet, 40 steps of 4, lora:4", 41.0, "s"),
    ]
    assert gpu.beside_the_network(given) == [
        "guda score four images, 100 timesteps, 3 models: 41.0 s, of which the network alone 4.00 s"
    ]
    assert gpu.beside_the_network(given[2:]) == []
