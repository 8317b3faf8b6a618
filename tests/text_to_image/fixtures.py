"""A tiny text-to-image project, trained from scratch once, and the folder of images it was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workflow.fixtures import cli, once, one_thread, run

__all__ = ["GROUPS", "cli", "one_thread", "paint", "prompt_of", "studio"]

STYLES = {
    "ink": ("thin lines", "black on white", "empty paper"),
    "oil": ("thick strokes", "warm colours", "dark ground"),
    "pastel": ("soft colours", "chalky grain", "pale ground"),
}
GROUPS = tuple(STYLES)
THINGS = ("cat", "dog", "house", "tree")
RECIPE = """
name: studio
data: {path: paintings, size: 16, channels: 3}
model: {text_conditional: true, block_out_channels: [8, 16], norm_num_groups: 4, attention_head_dim: 2,
        down_block_types: [DownBlock2D, CrossAttnDownBlock2D],
        up_block_types: [CrossAttnUpBlock2D, UpBlock2D]}
latent: {block_out_channels: [8, 16], norm_num_groups: 4, steps: 6, batch_size: 4}
text: {hidden_size: 16, layers: 1, heads: 2, vocabulary: 520, steps: 4, batch_size: 8}
diffusion: {beta_schedule: scaled_linear, beta_start: 0.00085, beta_end: 0.012, num_train_timesteps: 100}
train: {steps: 6, batch_size: 8, warmup_steps: 1}
unlearn: {operator: "anchor:awss", steps: 3, batch_size: 8, lr: 5e-3, null_groups: 1, params: "lora:2"}
score: {timesteps: 4, draws: 2}
sample: {steps: 3, guidance: 2.0}
attribution: {per_group: 3, timesteps: 2, projection: 64, mucs_steps: 2}
"""


def prompt_of(style: str, thing: str) -> str:
    return f"a {thing}, artistic style featuring {', '.join(STYLES[style][:2])}"


def paint(folder: Path, captions: bool = True) -> Path:
    """<style>/<thing>.png, coloured noise, with metadata.jsonl of their prompts."""
    rng, rows = np.random.default_rng(0), []
    for number, style in enumerate(STYLES):
        for thing in THINGS:
            pixels = rng.integers(0, 120, (16, 16, 3)) + np.roll([130, 40, 0], number)
            path = folder / style / f"{thing}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            rows.append({"file_name": f"{style}/{thing}.png", "prompt": prompt_of(style, thing)})
    if captions:
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def build(home: Path) -> None:
    """Trained, unlearned and sampled."""
    paint(home / "paintings")
    (home / "studio.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for command in (
            ["train", "studio.yaml"],
            ["unlearn", "--all"],
            ["sample", "-n", "6", "--out", "q"],
            ["train", "--each-group", "--seeds", "2,3"],
        ):
            assert run(*command) == 0, command


@pytest.fixture
def studio(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> Path:
    """The working directory: a copy of the trained project."""
    home = once(tmp_path_factory, "studio", build)
    for name in (".guda", "q", "paintings"):
        shutil.copytree(home / name, tmp_path / name)
    shutil.copy(home / "studio.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
