"""`accelerate launch` of the real commands: the weights of one process, one voice, and an end on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from guda_cli.diffusion import networks
from guda_cli.store import ActionRecord, Store
from tests.text_to_image.fixtures import RECIPE, paint
from tests.training.test_distributed import free_port
from tests.workflow.processes import saved_step

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]
pytest.importorskip("accelerate")

GUDA = ["-m", "guda_cli"]
PATIENCE = 900.0
DIGITS = [
    item
    for value in (
        "data.per_group=8", "model.block_out_channels=[8, 16]", "model.norm_num_groups=4",
        "train.batch_size=6", "train.steps=60", "train.warmup_steps=5",
    )
    for item in ("--set", value)
]  # fmt: skip


def begin(folder: Path, store: str, *args: str, world: int = 1, **environment: str) -> subprocess.Popen[str]:
    """A command in `world` processes, with a store of its own."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(world)]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--main_process_port", str(free_port())]
    command = [sys.executable, *(launcher if world > 1 else []), *GUDA, *args]
    own = {"GUDA_STORE": str(folder / store), "GUDA_THREADS": "1", "OMP_NUM_THREADS": "1", **environment}
    own["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    return subprocess.Popen(
        [*command, "--device", "cpu"], cwd=folder, env={**os.environ, **own},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def guda(folder: Path, store: str, *args: str, world: int = 1) -> list[dict]:
    """The documents that a command prints; it must end well."""
    process = begin(folder, store, *args, "--json", world=world)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def made(store: Path, operation: str) -> tuple[ActionRecord, dict[str, torch.Tensor]]:
    """The only record of an operation, and its weights."""
    opened = Store.open(store)
    [record] = opened.records(operation)
    return record, networks.from_bytes(opened.read_bytes(record.outputs["weights"]))


def test_a_text_to_image_model_from_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """The first process alone makes VAE, text encoder, latents and embeddings."""
    paint(tmp_path / "paintings")
    (tmp_path / "studio.yaml").write_text(RECIPE)
    for world in (1, 2):
        store = f"of-{world}"
        assert len(guda(tmp_path, store, "train", "studio.yaml", world=world)) == 1
        assert len(guda(tmp_path, store, "unlearn", "--group", "ink", "--no-null", world=world)) == 1
    [(one, weights), (two, others)] = (made(tmp_path / f"of-{world}", "train") for world in (1, 2))
    assert one.key == two.key, "VAE and text encoder, which the key holds, are the same bits"
    assert (one.provenance.get("processes"), two.provenance["processes"]) == (None, 2)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)
    assert made(tmp_path / "of-2", "unlearn")[0].provenance["processes"] == 2
    assert not list((tmp_path / "of-2/states").glob("*.state"))


def alive(text: str) -> list[str]:
    """Command lines of running processes whose environment holds `text`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return [line for line in found if "guda_cli" in line]


def test_ctrl_c_ends_all_and_one_process_goes_on(tmp_path: Path) -> None:
    """The digits: begun by two processes and ended by one, the model is that of one process alone."""
    command = ["train", "digits", *DIGITS]
    process = begin(tmp_path, "begun", *command, world=2, GUDA_CHECKPOINT_SECONDS="0")
    late = time.monotonic() + PATIENCE
    while saved_step(tmp_path / "begun") < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < late
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert err.count("interrupted; state saved") == 1, err
    assert not alive(str(tmp_path / "begun"))
    assert 3 <= saved_step(tmp_path / "begun") < 60
    guda(tmp_path, "begun", *command)
    guda(tmp_path, "alone", *command)
    begun, weights = made(tmp_path / "begun", "train")
    alone, others = made(tmp_path / "alone", "train")
    assert begun.key == alone.key
    assert begun.provenance["resumed_at_step"] >= 3
    for name, value in others.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=1e-3)
