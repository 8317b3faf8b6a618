"""Recipes on a given Stable Diffusion pipeline, tiny but with its classes, files and configuration fields."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from guda_cli.checkpoints.pipeline_folder import read_pipeline
from tests.latent.compvis import checkpoint
from tests.latent.conftest import save
from tests.text_to_image.fixtures import GROUPS, cli, one_thread, paint
from tests.workflow.fixtures import Cli, here, record, scores

__all__ = ["cli", "one_thread"]
SMALL = [
    item
    for value in (
        "data.size=16", "train.steps=3", "train.mixed_precision=no", "train.gradient_checkpointing=false",
        "unlearn.steps=2", "unlearn.null_groups=1", "score.timesteps=3", "score.dtype=float32",
        "sample.steps=2",
    )
    for item in ("--set", value)
]  # fmt: skip


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd") / "pipe"
    save(folder)
    return folder


@pytest.fixture
def work(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    shutil.copytree(pipeline, tmp_path / "pipe")
    paint(tmp_path / "paintings")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_checkpoint(work: Path) -> None:
    """model.safetensors: the pipeline in one file."""
    tensors = checkpoint(read_pipeline(str(work / "pipe")))
    save_file({name: value.numpy() for name, value in tensors.items()}, work / "model.safetensors")


class TestRecipes:
    def test_paintings(self, work: Path, cli: Cli) -> None:
        Path("my.yaml").write_text(cli("recipes", "show", "paintings").stdout)
        done = cli("train", "my.yaml", code=3)
        assert "--from" in done.stderr
        cli("train", "my.yaml", "--from", "pipe", *SMALL)
        assert {r.operation for r in here().records()} >= {"pipeline", "train", "latents", "embeddings"}
        cli("unlearn", "--all")
        cli("sample", "-n", "1", "--out", "q")
        [found] = cli("score", "q/00000.png", "--top", "5", "--json").documents
        assert {entry["group"] for entry in found["scores"]} == set(GROUPS)

    def test_unlearncanvas(self, work: Path, cli: Cli) -> None:
        """Its layout: <Style>/<Object>/<id>.jpg and one file of prompts."""
        rows = [json.loads(line) for line in (work / "paintings/metadata.jsonl").read_text().splitlines()]
        canvas, lines = work / "canvas", []
        for row in rows:
            style, thing = row["file_name"].removesuffix(".png").split("/")
            target = canvas / style / thing / "1.png"
            target.parent.mkdir(parents=True)
            shutil.copy(work / "paintings" / row["file_name"], target)
            lines.append(json.dumps({"file_name": f"{style}/{thing}/1.png", "prompt": row["prompt"]}))
        (canvas / "prompts.jsonl").write_text("\n".join(lines))
        sets = ["--set", "data.path=canvas", *SMALL]
        cli("train", "unlearncanvas-sd15", "--from", "pipe", *sets)
        how = ("--operator", "anchor:matched")
        cli("unlearn", "--group", "ink", *how)
        [found] = cli("score", canvas / "ink/cat/1.png", "--prompt", "a cat", *how, "--json").documents
        assert [entry["group"] for entry in found["scores"]] == ["ink"]

    def test_fine_tuning_some_parameters_leaves_the_others(self, work: Path, cli: Cli) -> None:
        from guda_cli.diffusion import networks

        cli("train", "paintings", "--from", "pipe", *SMALL, "--set", "train.params=cross-attn-kv")
        before, after = (
            networks.from_bytes(here().read_bytes(record(kind).outputs["weights"]))
            for kind in ("pipeline", "train")
        )
        changed = {name for name, value in before.items() if not bool((value == after[name]).all())}
        assert changed
        assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in changed)


class TestAsIs:
    def test_a_checkpoint_of_ones_own_is_the_full_model(self, work: Path, cli: Cli) -> None:
        cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL)
        full = record("register")
        assert not list(here().records("train"))
        cli("unlearn", "--group", "oil", "--no-null")
        assert record("unlearn", "oil").inputs["weights"] == full.outputs["weights"]

    def test_a_unet_over_its_base(self, work: Path, cli: Cli) -> None:
        done = cli("train", "paintings", "--from", "pipe/unet", "--as-is", *SMALL, code=2)
        assert "--base" in done.stderr
        cli("train", "paintings", "--from", "pipe/unet", "--as-is", "--base", "pipe", *SMALL)
        cli("train", "--without", "oil")  # starts from the base
        assert record("train", "oil").params["base"] == record("pipeline").key

    def test_it_says_the_same_as_diffusers(self, work: Path, cli: Cli) -> None:
        """The ELBO terms of the pipeline's own network, computed with diffusers' own classes."""
        import torch
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        from guda_cli.diffusion.noise import QueryNoise
        from guda_cli.diffusion.schedule import from_config

        cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL)
        cli("unlearn", "--group", "oil", "--no-null")
        image, text = work / "paintings/ink/cat.png", "cat dog"
        [found] = cli("score", image, "--prompt", text, "--json").documents
        pipe = StableDiffusionPipeline.from_pretrained("pipe", safety_checker=None)
        [row] = [r for r in here().tables() if not any("base" in name for name in r["spec"]["inputs"])]
        [key] = here().table_rows(row["table"])
        terms = here().table_read(row["table"], [key])[0]["terms"][0]
        grid = row["spec"]["params"]["grid"]
        schedule = from_config(pipe.scheduler.config)
        from guda_cli.data.images import decode, pixels_digest
        from guda_cli.diffusion.grid import build

        pixels = decode(image, 16, 3, "x")
        at = build(grid, schedule.T).timesteps
        with torch.no_grad():
            x = torch.from_numpy(pixels[None]).float() / 127.5 - 1
            z = pipe.vae.encode(x).latent_dist.mean * pipe.vae.config.scaling_factor
            told = pipe.encode_prompt(text, "cpu", 1, False)[0]
            for draw, row_of_t in enumerate(at):
                for column, t in enumerate(row_of_t):
                    noise = QueryNoise(0).fill(torch.empty(z.shape), [(pixels_digest(pixels), int(t), draw)])
                    abar = schedule.abar[t]
                    x_t = abar**0.5 * z + (1 - abar) ** 0.5 * noise
                    said = pipe.unet(x_t, int(t) - 1, encoder_hidden_states=told).sample
                    by_hand = schedule.elbo_weight[t] * float(((said - noise) ** 2).sum())
                    assert terms[draw, column] == pytest.approx(by_hand, rel=1e-4)
        assert scores([found])

    def test_a_single_file_with_a_configuration_only(self, work: Path, cli: Cli) -> None:
        write_checkpoint(work)
        for path in (work / "pipe").rglob("*.safetensors"):
            path.unlink()
        source = ("--from", "model.safetensors", "--base", "pipe", "--as-is")
        done = cli("train", "paintings", *source, *SMALL, "--set", "train.params=full")
        assert "trained from scratch" in done.stderr
        cli("unlearn", "--group", "oil", "--no-null")
        cli("train", "--without", "oil")
        assert record("train", "oil").params["base"] is None

    def test_a_base_of_another_kind(self, work: Path, cli: Cli) -> None:
        """Of other noise, other sizes, another text encoder: refused, refused, and said."""
        whole = ("train", "paintings", "--from", "pipe", "--as-is", *SMALL, "--base")
        shutil.copytree(work / "pipe", work / "noise")
        path = work / "noise/scheduler/scheduler_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
        done = cli(*whole, "noise", code=3)
        assert "epsilon and v_prediction" in done.stderr
        save(work / "wide", linear_projection=True)
        done = cli(*whole, "wide", code=3)
        assert "not of one architecture" in done.stderr
        shutil.copytree(work / "pipe", work / "words")
        weights = work / "words/text_encoder/model.safetensors"
        tensors = load_file(weights)
        name = min(tensors)
        save_file({**tensors, name: tensors[name] + 1}, weights, {"format": "pt"})
        done = cli(*whole, "words")
        assert "text_encoder is not the base's" in done.stderr
        cli("train", "--without", "oil")
        config = json.loads(here().read_bytes(record("train", "oil").outputs["config"]))
        assert config["parts"]["text_encoder"] == record("register").outputs["text_encoder"]
        assert not list(here().records("unlearn"))


class TestBadInput:
    def test_missing_captions(self, work: Path, cli: Cli) -> None:
        rows = (work / "paintings/metadata.jsonl").read_text().splitlines()
        (work / "paintings/metadata.jsonl").write_text("\n".join(rows[:-2]))
        done = cli("train", "paintings", "--from", "pipe", *SMALL, code=3)
        assert "no prompt" in done.stderr
        done = cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL, code=3)
        assert "no prompt" in done.stderr
        assert {r.operation for r in here().records()} == {"dataset"}

    def test_a_group_with_no_style_left(self, work: Path, cli: Cli) -> None:
        for group in ("pastel",):
            shutil.rmtree(work / "paintings" / group)
        rows = (work / "paintings/metadata.jsonl").read_text().splitlines()
        kept = [line for line in rows if "pastel/" not in line]
        plain = [line.split(", artistic style")[0] + '"}' if "oil/" in line else line for line in kept]
        (work / "paintings/metadata.jsonl").write_text("\n".join(plain))
        cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL)
        done = cli("unlearn", "--group", "ink", "--no-null", code=3)
        assert "style" in done.stderr
        assert not list(here().records("unlearn"))

    def test_a_component_is_lacking(self, work: Path, cli: Cli) -> None:
        shutil.rmtree(work / "pipe/vae")
        done = cli("train", "paintings", "--from", "pipe", *SMALL, code=3)
        assert "vae" in done.stderr

    def test_a_network_that_reads_the_guidance_scale(self, work: Path, cli: Cli) -> None:
        path = work / "pipe/unet/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "time_cond_proj_dim": 8}))
        for extra in ((), ("--as-is",)):
            done = cli("train", "paintings", "--from", "pipe", *SMALL, *extra, code=3)
            assert "time_cond_proj_dim = 8" in done.stderr
        assert {r.operation for r in here().records()} == {"dataset"}

    def test_a_pickle_is_refused(self, work: Path, cli: Cli) -> None:
        weights = work / "pipe/unet/diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        done = cli("train", "paintings", "--from", "pipe", *SMALL, code=3)
        assert "pickle" in done.stderr

    def test_a_mismatched_scale_is_warned_of(self, work: Path, cli: Cli) -> None:
        path = work / "pipe/vae/config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "scaling_factor": 1e-4}))
        done = cli("train", "paintings", "--from", "pipe", *SMALL)
        assert done.stderr.count("scaling_factor") == 1
        assert "pipe is of the family stable-diffusion" in done.stderr
        done = cli("unlearn", "--group", GROUPS[0])
        assert "scaling_factor" not in done.stderr, "it is said where it is measured"

    def test_a_forgotten_scale_is_refused(self, work: Path, cli: Cli) -> None:
        path = work / "pipe/vae/config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "scaling_factor": 1e3}))
        for extra in ((), ("--as-is",)):
            done = cli("train", "paintings", "--from", "pipe", *SMALL, *extra, code=3)
            assert "scaling_factor" in done.stderr
        assert {r.operation for r in here().records()} == {"dataset"}
        cli("train", "paintings", "--from", "pipe", *SMALL, "--set", "latent.check_scaling=false")
        assert record("train")

    def test_options_that_mean_nothing_here(self, work: Path, cli: Cli) -> None:
        done = cli("train", "paintings", "--from", "pipe", "--scheduler", "pipe/scheduler", *SMALL, code=2)
        assert "--scheduler goes with" in done.stderr
        done = cli("train", "digits", "--from", "pipe", "--base", "pipe", code=2)
        assert "--base goes with" in done.stderr
        done = cli("train", "paintings", "--from", "pipe/unet", "--base", "./nowhere", *SMALL, code=3)
        assert "./nowhere" in done.stderr

    def test_a_dry_run_looks_where_the_model_is(self, work: Path, cli: Cli) -> None:
        done = cli("train", "paintings", "--from", "pipe", *SMALL, "--dry-run")
        assert "taken over from pipe" in done.stdout
        assert "VAE" not in done.stdout
        cli("train", "paintings", "--from", "./nowhere", *SMALL, "--dry-run", code=3)
        assert not Path(".guda").exists(), "a dry run makes no store"

    def test_sizes_that_do_not_fit(self, work: Path, cli: Cli) -> None:
        done = cli("train", "paintings", "--from", "pipe", *SMALL, "--set", "data.size=18", code=2)
        assert "multiple" in done.stderr

    def test_overflow_in_half_precision_is_an_error(self, work: Path, cli: Cli) -> None:
        """A query whose latents are beyond what fp16 holds."""
        path = work / "pipe/unet/diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        weights["conv_out.weight"] = weights["conv_out.weight"] * np.float32(1e7)
        save_file(weights, path, {"format": "pt"})
        cli("train", "paintings", "--from", "pipe", "--as-is", *SMALL, "--set", "unlearn.params=lora:2")
        cli("unlearn", "--group", "oil", "--no-null")
        image = work / "paintings/oil/cat.png"
        done = cli("score", image, "--prompt", "a cat", "--set", "score.dtype=float16", code=3)
        assert "bfloat16" in done.stderr


class TestAdapters:
    STEM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q"

    def test_another_kind_ends_with_3_and_its_name(self, work: Path, cli: Cli) -> None:
        """Before a base is wanted or read."""
        save_file({f"{self.STEM}.hada_w1_a": np.ones((8, 2), np.float32)}, "style.safetensors")
        for base in ((), ("--base", "pipe")):
            done = cli("train", "paintings", "--from", "style.safetensors", *base, *SMALL, code=3)
            assert "style.safetensors is not a plain LoRA but LoHa" in done.stderr
            assert "does not belong" not in done.stderr

    def test_names_by_compvis_and_what_lies_beside(self, work: Path, cli: Cli) -> None:
        factors = {"lora_down": np.ones((1, 8), np.float32), "lora_up": np.ones((8, 1), np.float32)}
        tensors = {f"{self.STEM}.{name}.weight": value for name, value in factors.items()}
        for part in ("unet", "text_encoder"):
            Path("style", part).mkdir(parents=True)
            save_file(tensors, f"style/{part}/adapter_model.safetensors")
            Path("style", part, "adapter_config.json").write_text('{"r": 1, "lora_alpha": 1}')
        done = cli(
            "train", "paintings", "--from", "style/unet", "--base", "pipe", "--as-is", *SMALL,
            "--set", "latent.check_scaling=false",
        )  # fmt: skip
        assert "the LoRA of the text encoder beside it was not added" in done.stderr
        cli("store", "export", "full model", "out")
        name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight"
        stem = "unet/diffusion_pytorch_model.safetensors"
        np.testing.assert_allclose(
            load_file(f"out/{stem}")[name], load_file(f"pipe/{stem}")[name] + 1, rtol=1e-5
        )
