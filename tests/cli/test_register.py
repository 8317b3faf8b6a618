"""`guda train --from`: models of diffusers taken over, refused, used, and given back by `store export`."""

# ruff: noqa: F401, F811
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_folder import POINTER, as_cache
from tests.workflow.fixtures import GROUPS, RECIPE, Cli, cli, draw, here, one_thread, record, scores

Build = Callable[..., Path]
SHORT = ["--set", "unlearn.steps=2"]
FROM = ["train", "tiny.yaml", *SHORT, "--from"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images and recipe."""
    draw(tmp_path / "images", images=3)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def build(work: Path) -> Build:
    """Save a tiny DDPMPipeline as `build(prediction_type=..., channels=..., out=..., size=...)`."""

    def make(
        prediction_type: str = "epsilon", channels: int = 1, out: int | None = None, size: int = 8
    ) -> Path:
        import torch
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=size, in_channels=channels, out_channels=out or channels, layers_per_block=1,
            block_out_channels=(8, 16), norm_num_groups=4, add_attention=False,
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        variance = "learned_range" if out and out != channels else "fixed_small"
        scheduler = DDPMScheduler(
            num_train_timesteps=40,
            beta_schedule="linear",
            prediction_type=prediction_type,
            variance_type=variance,
        )
        folder = work / "model"
        DDPMPipeline(unet, scheduler).save_pretrained(folder, safe_serialization=True)
        return folder

    return make


def weights(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


class TestTakenOver:
    @pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
    def test_then_unlearned_and_scored(self, cli: Cli, build: Build, documents, kind: str) -> None:
        done = cli(*FROM, build(kind), "--json")
        [taken] = documents(done.stdout)
        assert "registered" in done.stderr
        assert cli("train", "--json").document["models"][0]["weights"] == taken["models"][0]["weights"]
        made = cli("unlearn", "--group", "blue", "--group", "dune", "--no-null", "--json").document
        assert made["ran"] == 2
        found = cli("score", "images/amber", "--json").documents
        assert all({s["group"] for s in d["scores"]} == {"blue", "dune"} for d in found)
        assert all(s["score"] != 0 for d in found for s in d["scores"])
        assert "no model was run" in cli("score", "images/amber").stderr
        cli("sample", "-n", "2", "--out", "s")
        cli("report", "--html", "r.html")

    def test_again_is_the_same_model(self, cli: Cli, build: Build) -> None:
        folder = build()
        first = cli(*FROM, folder, "--json").document
        folder.rename("elsewhere")
        assert cli(*FROM, "elsewhere", "--json").document["models"][0]["key"] == first["models"][0]["key"]

    def test_a_network_folder_with_its_schedule(self, cli: Cli, build: Build) -> None:
        folder = build("v_prediction")
        whole = cli(*FROM, folder, "--json").document["models"][0]["key"]
        for schedule in (folder / "scheduler", folder / "scheduler" / "scheduler_config.json"):
            done = cli(*FROM, folder / "unet", "--scheduler", schedule, "--json")
            assert done.document["models"][0]["key"] == whole

    def test_a_network_folder_without_one_uses_the_recipe_and_says_so(self, cli: Cli, build: Build) -> None:
        (build() / "unet").rename("alone")
        done = cli(*FROM, "alone")
        assert "recipe's diffusion section" in done.stderr
        assert len(here().read_bytes(record("register").outputs["betas"])) == 50 * 8

    def test_a_pipelines_unet_takes_the_schedule_beside_it(self, cli: Cli, build: Build) -> None:
        folder = build("v_prediction")
        done = cli(*FROM, folder / "unet", "--json")
        assert "the noise schedule is that beside it" in done.stderr
        assert done.document["models"][0]["key"] == cli(*FROM, folder, "--json").document["models"][0]["key"]

    def test_shards(self, cli: Cli, build: Build) -> None:
        from diffusers.models.unets.unet_2d import UNet2DModel

        folder = build()
        whole = cli(*FROM, folder, "--json").document["models"][0]["weights"]
        unet = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True)
        weights(folder).unlink()
        unet.save_pretrained(folder / "unet", safe_serialization=True, max_shard_size="20KB")
        assert len(list((folder / "unet").glob("*.safetensors"))) > 1
        assert cli(*FROM, folder, "--json").document["models"][0]["weights"] == whole
        next((folder / "unet").glob("*.safetensors")).unlink()
        assert "is missing" in cli(*FROM, folder, code=3).stderr

    def test_all_files_in_one_folder(self, cli: Cli, build: Build, work: Path) -> None:
        """As the first DDPMs on the hub lie: the schedule is the model's own, not the recipe's."""
        whole = cli(*FROM, build("v_prediction"), "--json").document["models"][0]["key"]
        (work / "flat").mkdir()
        for path in (work / "model").rglob("*.*"):
            shutil.copy(path, work / "flat" / path.name)
        assert cli(*FROM, "flat", "--json").document["models"][0]["key"] == whole
        (work / "flat" / "model_index.json").unlink()
        done = cli(*FROM, "flat", "--json")
        assert "the noise schedule is that beside the weights" in done.stderr
        assert done.document["models"][0]["key"] == whole

    def test_a_hubs_cache_folder(self, cli: Cli, build: Build, work: Path) -> None:
        """As the hub's client lays it out: links from the snapshot to blobs named by digest."""
        whole = cli(*FROM, build(), "--json").document["models"][0]["key"]
        cache = as_cache(work / "model", work / "models--owner--name")
        for place in (cache, cache / "snapshots" / "abc"):
            assert cli(*FROM, place, "--json").document["models"][0]["key"] == whole

    def test_what_git_lfs_has_not_fetched(self, cli: Cli, build: Build) -> None:
        folder = build()
        weights(folder).write_bytes(POINTER)
        done = cli(*FROM, folder, code=3)
        assert "git lfs pull" in done.stderr

    def test_learned_variance_is_said_and_scored(self, cli: Cli, build: Build) -> None:
        cli(*FROM, build(out=2))
        cli("unlearn", "--group", "blue", "--no-null")
        done = cli("score", "images/amber/00.png", "--json")
        assert "only its noise half is scored" in done.stderr
        assert done.document["scores"][0]["score"] != 0

    def test_learned_variance_in_colour(self, cli: Cli, build: Build) -> None:
        folder = build(channels=3, out=6)
        cli(*FROM, folder, "--set", "data.channels=3")
        cli("unlearn", "--group", "blue", "--no-null")
        cli("score", "images/amber/00.png", "--json")
        cli("sample", "-n", "1", "--out", "s")

    def test_retrained_models_have_its_shape(self, cli: Cli, build: Build) -> None:
        cli(*FROM, build())
        cli("train", "--without", "blue", "--set", "train.steps=1")
        config = json.loads(here().read_bytes(record("train").outputs["config"]))
        assert config["scheduler"]["num_train_timesteps"] == 40

    def test_damaged_later_it_must_be_registered_again(self, cli: Cli, build: Build) -> None:
        from tests.workflow.fixtures import flip

        folder = build()
        cli(*FROM, folder)
        flip(here(), record("register").outputs["weights"])
        done = cli("unlearn", "--group", "blue", "--no-null", code=5)
        assert "--from" in done.stderr
        cli(*FROM, folder)
        cli("unlearn", "--group", "blue", "--no-null")


class TestRefused:
    def refused(self, cli: Cli, folder: Path, *extra: object) -> str:
        done = cli(*FROM, folder, *extra, code=3)
        assert not list(here().records("register"))
        assert here().get_document("current") is None
        return done.stderr

    def test_only_a_pickle(self, cli: Cli, build: Build) -> None:
        folder = build()
        weights(folder).unlink()
        (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04N.")
        said = self.refused(cli, folder)
        assert "pickle can run any code" in said
        assert "safe_serialization=True" in said

    @pytest.mark.parametrize("keep", [0, 4, 60, 5000])
    def test_cut_weights(self, cli: Cli, build: Build, keep: int) -> None:
        path = weights(build())
        path.write_bytes(path.read_bytes()[:keep])
        assert "not a readable safetensors" in self.refused(cli, Path("model"))

    def test_weights_that_are_not_numbers(self, cli: Cli, build: Build) -> None:
        from safetensors.numpy import load_file, save_file

        path = weights(build())
        values = load_file(path)
        values["conv_in.weight"][0, 0, 0, 0] = np.nan
        save_file(values, path)
        assert "conv_in.weight" in self.refused(cli, Path("model"))

    def test_other_tensors(self, cli: Cli, build: Build) -> None:
        from safetensors.numpy import load_file, save_file

        path = weights(build())
        values = load_file(path)
        values["extra"] = values.pop("conv_in.weight")
        save_file(values, path)
        assert "do not fit" in self.refused(cli, Path("model"))

    def test_no_schedule(self, cli: Cli, build: Build) -> None:
        folder = build()
        shutil.rmtree(folder / "scheduler")
        assert "--scheduler" in self.refused(cli, folder)

    @pytest.mark.parametrize("text", ["", "[]", "{}", "no json"])
    def test_a_broken_schedule(self, cli: Cli, build: Build, text: str) -> None:
        (build() / "scheduler" / "scheduler_config.json").write_text(text)
        self.refused(cli, Path("model"))

    def test_a_broken_configuration(self, cli: Cli, build: Build) -> None:
        (build() / "unet" / "config.json").write_text("{")
        assert "config.json" in self.refused(cli, Path("model"))

    def test_wrong_size_and_channels(self, cli: Cli, build: Build) -> None:
        said = self.refused(cli, build(size=16))
        assert "--set data.channels=1 --set data.size=16" in said
        said = self.refused(cli, build(channels=3))
        assert "--set data.channels=3 --set data.size=8" in said

    def test_another_class(self, cli: Cli, build: Build) -> None:
        change(build() / "unet" / "config.json", _class_name="UNet2DConditionModel")
        assert "UNet2DConditionModel" in self.refused(cli, Path("model"))

    def test_class_embeddings_only_in_the_configuration(self, cli: Cli, build: Build) -> None:
        change(build() / "unet" / "config.json", num_class_embeds=4)
        assert "do not fit" in self.refused(cli, Path("model"))

    @pytest.mark.parametrize("key", ["prediction_type", "beta_schedule"])
    def test_a_schedule_nobody_knows(self, cli: Cli, build: Build, key: str) -> None:
        change(build() / "scheduler" / "scheduler_config.json", **{key: "unheard"})
        assert "unheard" in self.refused(cli, Path("model"))

    def test_another_pipeline(self, cli: Cli, build: Build) -> None:
        change(build() / "model_index.json", _class_name="ConsistencyModelPipeline")
        assert "is a ConsistencyModelPipeline" in self.refused(cli, Path("model"))

    def test_a_cache_of_two_snapshots_names_one(self, cli: Cli, build: Build, work: Path) -> None:
        for name in ("abc", "def"):
            shutil.copytree(build(), work / "models--owner--name" / "snapshots" / name)
        said = self.refused(cli, Path("models--owner--name"))
        assert "try: guda train tiny.yaml" in said
        assert "--from models--owner--name/snapshots/def" in " ".join(said.split())

    def test_no_folder(self, cli: Cli, work: Path) -> None:
        assert "no such file or folder" in cli(*FROM, "./nowhere", code=3).stderr
        assert not (work / ".guda").exists()


@pytest.mark.parametrize("origin", ["registered", "trained"])
def test_an_export_predicts_the_same(cli: Cli, build: Build, origin: str) -> None:
    import torch
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

    from guda_cli.diffusion import networks

    cli(*(FROM + [build("v_prediction")] if origin == "registered" else ["train", "tiny.yaml", *SHORT]))
    cli("unlearn", "--group", "blue", "--no-null")
    full = record("register" if origin == "registered" else "train")
    config = json.loads(here().read_bytes(full.outputs["config"]))
    base = networks.from_bytes(here().read_bytes(full.outputs["weights"]))
    made = record("unlearn", "blue")
    delta = networks.from_bytes(here().read_bytes(made.outputs["weights"]))
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 7, 39])
    predictions = []
    for key, values in ((full.key, base), (made.key, {**base, **delta})):
        cli("store", "export", key, key[:6])
        pipeline = DDPMPipeline.from_pretrained(key[:6], use_safetensors=True)
        from guda_cli.families.pixels import Pixels

        network = Pixels().build(config["unet"], seed=0)
        network.load_state_dict(values)
        with torch.no_grad():
            predictions.append(pipeline.unet.eval()(x, t).sample)
            assert torch.equal(predictions[-1], network.eval()(x, t).sample)
        assert pipeline.scheduler.config.prediction_type == config["scheduler"]["prediction_type"]
        betas = np.frombuffer(here().read_bytes(full.outputs["betas"]))
        np.testing.assert_allclose(pipeline.scheduler.betas.numpy(), betas, rtol=1e-4)
    assert not torch.equal(*predictions)


def test_an_export_can_be_registered(cli: Cli, build: Build) -> None:
    cli(*FROM, build())
    first = record("register")
    cli("store", "export", first.key, "out")
    again = cli(*FROM, "out", "--json").document["models"][0]
    assert again["weights"] == first.outputs["weights"]
