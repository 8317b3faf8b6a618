"""`accelerate launch` of the real commands: the weights of one process, one voice, and an end on Ctrl-C.

Each command is launched by accelerate once, whose processes are real ones; what else runs is forked, which
spares it loading torch again.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from guda_cli.diffusion import networks
from guda_cli.store import ActionRecord, Store
from tests.text_to_image.fixtures import RECIPE, paint
from tests.workflow import processes
from tests.workflow.processes import ROOT, free_port, saved_step

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]
pytest.importorskip("accelerate")

GUDA = ["-m", "guda_cli"]
DIGITS = [
    item
    for value in (
        "data.per_group=8", "model.block_out_channels=[8, 16]", "model.norm_num_groups=4",
        "train.batch_size=6", "train.steps=60", "train.warmup_steps=5",
    )
    for item in ("--set", value)
]  # fmt: skip


def begin(folder: Path, store: str, *args: str, **environment: str) -> processes.Process:
    """`accelerate launch` of a command in two processes, with a store of its own."""
    launcher = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "--main_process_port", str(free_port())]
    own = {"GUDA_STORE": str(folder / store), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    command = [*launcher, *GUDA, *args, "--device", "cpu"]
    return processes.Process(folder, "accelerate.commands.launch", command, own)


def launched(folder: Path, store: str, *args: str) -> list[dict]:
    """The documents that a command which accelerate launches prints; it must end well."""
    code, done = begin(folder, store, *args, "--json").wait()
    assert code == 0, done.stderr
    return done.documents


def forked(folder: Path, store: str, *args: str, world: int = 1) -> list[dict]:
    """The documents that all processes of a command print; they must end well."""
    where = {"GUDA_STORE": str(folder / store)}
    command = [*args, "--json", "--device", "cpu"]
    if world == 1:
        return processes.run(folder, *command, **where).documents
    ended = [process.wait() for process in processes.launch(world, folder, "guda_cli", *command, **where)]
    assert [code for code, _ in ended] == [0] * world, ended
    return [document for _, done in ended for document in done.documents]


def made(store: Path, operation: str) -> tuple[ActionRecord, dict[str, torch.Tensor]]:
    """The only record of an operation, and its weights."""
    opened = Store.open(store)
    [record] = opened.records(operation)
    return record, networks.from_bytes(opened.read_bytes(record.outputs["weights"]))


def test_a_text_to_image_model_from_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """The first process alone makes VAE, text encoder, latents and embeddings."""
    paint(tmp_path / "paintings")
    (tmp_path / "studio.yaml").write_text(RECIPE)
    unlearn = ["unlearn", "--group", "ink", "--no-null"]
    for world in (1, 2):
        assert len(forked(tmp_path, f"of-{world}", "train", "studio.yaml", world=world)) == 1
    assert len(forked(tmp_path, "of-1", *unlearn)) == 1
    assert len(launched(tmp_path, "of-2", *unlearn)) == 1
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
    process = begin(tmp_path, "begun", *command, GUDA_CHECKPOINT_SECONDS="0")
    process.when(lambda: saved_step(tmp_path / "begun") >= 3)
    os.kill(process.pid, signal.SIGINT)
    code, done = process.wait()
    err = done.stderr
    assert code != 0
    assert err.count("interrupted; state saved") == 1, err
    assert not alive(str(tmp_path / "begun"))
    assert 3 <= saved_step(tmp_path / "begun") < 60
    forked(tmp_path, "begun", *command)
    forked(tmp_path, "alone", *command)
    begun, weights = made(tmp_path / "begun", "train")
    alone, others = made(tmp_path / "alone", "train")
    assert begun.key == alone.key
    assert begun.provenance["resumed_at_step"] >= 3
    for name, value in others.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=1e-3)
