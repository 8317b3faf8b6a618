"""A pipeline is taken over in one pass; of what was taken over every bit is checked before it is used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from guda_cli.diffusion import networks
from guda_cli.workflow.project.project import FINITE
from tests.store.inside import blob_file
from tests.text_to_image.fixtures import cli, one_thread
from tests.text_to_image.test_pipelines import SMALL, pipeline, work
from tests.workflow.fixtures import Cli, flip, hashed, here, record

__all__ = ["cli", "hashed", "one_thread", "pipeline", "work"]
FILES = {
    "weights": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


def test_each_component_is_hashed_once_and_what_it_was(work: Path, cli: Cli, hashed: Counter[str]) -> None:
    cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL)
    full = record("register")
    for name, file in FILES.items():
        path = blob_file(here(), full.outputs[name])
        assert hashed[full.outputs[name]] == path.stat().st_size, name
        assert path.read_bytes() == networks.to_bytes(load_file(Path("pipe") / file)), name
    assert full.provenance[FINITE] == sorted(FILES)
    assert not any(Path(".guda/tmp").iterdir())


@pytest.mark.parametrize("part", FILES)
def test_a_flipped_bit_in_any_component_is_found_before_a_score(part: str, work: Path, cli: Cli) -> None:
    cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL, "--set", "score.calibration=0")
    cli("unlearn", "--group", "ink", "--no-null")
    cli("sample", "-n", "1", "--out", "q")
    flip(here(), record("register").outputs[part])
    done = cli("score", "q/00000.png", "--json", code=5)
    assert done.document["schema"] == "guda.error/1"  # and no score
    assert done.document["error"] == f"the stored {part} of the full model is damaged"


def test_what_is_not_finite_leaves_no_model(work: Path, cli: Cli) -> None:
    from safetensors.torch import save_file

    path = Path("pipe") / FILES["weights"]
    weights = {name: value.clone() for name, value in load_file(path).items()}
    name = sorted(weights)[3]
    weights[name].reshape(-1)[0] = float("inf")
    save_file(weights, path, {"format": "pt"})
    done = cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL, code=3)
    assert "the unet has NaN or infinite weights" in done.stderr
    assert name in done.stderr
    assert {r.operation for r in here().records()} == {"dataset"}
