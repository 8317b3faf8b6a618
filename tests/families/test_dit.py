"""DiT: class-conditional on latents, asked, encoded, decoded and written as its official pipeline does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from guda_cli.errors import DataError, GudaError, RecipeError
from guda_cli.families import known
from guda_cli.families.dit import DiT
from guda_cli.families.family import Taken, Wanted
from guda_cli.settings import lookup
from guda_cli.workflow.models.take_over import Source
from tests.families import tiny_pipelines
from tests.families.test_pipelines_of_diffusers import stored
from tests.text_to_image.fixtures import cli, one_thread, paint
from tests.workflow.fixtures import Cli, here

__all__ = ["cli", "one_thread"]
SIDE = 16
CPU = torch.device("cpu")
GROUPS = ("ink", "oil", "pastel")


def take(
    source: Path, groups: tuple[str, ...] = GROUPS, trained: bool = True, size: int = SIDE, base: Any = None
) -> Taken:
    recipe = lookup.override({}, ["model.class_conditional=true", "model.family=dit"], Path())
    wanted = Wanted(
        recipe, (3, size, size), dict.fromkeys(groups, 4), lambda: None,
        lambda: torch.zeros(1, 3, size, size, dtype=torch.uint8), trained,
    )  # fmt: skip
    return DiT().take(str(source), base, wanted)


def ours(taken: Taken) -> Any:
    network = DiT().sharing(taken.config["transformer"], taken.weights.tensors())
    return DiT().denoiser(network, taken.schedule)


def official(folder: Path) -> Any:
    from diffusers import DiTPipeline

    found: Any = DiTPipeline.from_pretrained(folder)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of three classes; not to be changed."""
    return tiny_pipelines.save("dit", tmp_path_factory.mktemp("dit"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "pipeline"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@torch.no_grad()
def test_it_asks_the_network_as_the_pipeline_does(saved: Path) -> None:
    found = official(saved)
    calls: list[tuple[Any, Any, Any]] = []
    found.transformer.register_forward_hook(
        lambda module, args, kwargs, out: calls.append((args, kwargs, out)), with_kwargs=True
    )
    found([2, 0], guidance_scale=1.0, num_inference_steps=1, generator=torch.Generator().manual_seed(0))
    (x_t,), kwargs, out = calls[0]
    denoiser = ours(take(saved))
    raw = denoiser.predict(x_t, kwargs["timestep"] + 1, kwargs["class_labels"])
    assert out.sample.shape[1] == 8
    torch.testing.assert_close(raw, out.sample[:, :4], rtol=1e-5, atol=1e-5)
    assert DiT().learned_variance(take(saved).config["transformer"])


@torch.no_grad()
def test_guidance_asks_the_last_class_as_the_pipeline_does(tmp_path: Path) -> None:
    """Whose number the pipeline has as 1000."""
    folder = tiny_pipelines.save("dit", tmp_path, classes=1000)
    found = official(folder)
    calls: list[tuple[Any, Any, Any]] = []
    found.transformer.register_forward_hook(
        lambda module, args, kwargs, out: calls.append((args, kwargs, out)), with_kwargs=True
    )
    found([1], guidance_scale=4.0, num_inference_steps=1, generator=torch.Generator().manual_seed(0))
    (x_t,), kwargs, out = calls[0]
    assert kwargs["class_labels"].tolist() == [1, 1000]
    denoiser = ours(take(folder, trained=False))
    raw = denoiser.predict(x_t, kwargs["timestep"] + 1, torch.tensor([1, denoiser.null]))
    torch.testing.assert_close(raw, out.sample[:, :4], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denoiser.predict(x_t, kwargs["timestep"] + 1)[1], raw[1])


def test_labels_are_not_dropped_by_the_network_itself(saved: Path) -> None:
    """In training it would draw a tenth of them anew, whatever the recipe says."""
    denoiser = ours(take(saved))
    denoiser.network.train()
    x_t, t = torch.zeros(64, 4, 8, 8), torch.full((64,), 500)
    raw = denoiser.predict(x_t, t, torch.zeros_like(t))
    torch.testing.assert_close(raw, raw[:1].expand_as(raw), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_latents_are_the_pipelines_own(saved: Path) -> None:
    found, taken = official(saved), take(saved)
    codec = DiT().codec(stored(taken), CPU)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator())
    x0 = codec.encode(images)
    assert tuple(x0.shape[1:]) == codec.shape(SIDE) == (4, 8, 8)
    z = found.vae.encode(images.float() / 127.5 - 1.0).latent_dist.mode()
    torch.testing.assert_close(x0, z * 0.18215, rtol=1e-5, atol=1e-5)
    picture = (found.vae.decode(x0 / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    assert (codec.decode(x0) / 255.0 - picture).abs().max() <= 0.51 / 255.0


@torch.no_grad()
def test_what_is_written_draws_the_same_picture(folder: Path, tmp_path: Path) -> None:
    names = {"0": "ink, black ink", "1": "oil", "2": "pastel"}
    change(folder / "model_index.json", id2label=names)
    taken = take(folder)
    DiT().write(tmp_path / "out", taken.weights.tensors(), taken.config, stored(taken))
    before, after = official(folder), official(tmp_path / "out")
    assert after.labels == before.labels == {"ink": 0, "black ink": 0, "oil": 1, "pastel": 2}
    pictures = [
        one([2, 1], guidance_scale=1.0, num_inference_steps=2, generator=torch.Generator().manual_seed(3),
            output_type="np").images
        for one in (before, after)
    ]  # fmt: skip
    assert np.array_equal(*pictures)


def test_a_network_under_its_name_of_before_2024(folder: Path, saved: Path) -> None:
    change(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    change(
        folder / "transformer" / "config.json",
        _class_name="Transformer2DModel", attention_type="default", cross_attention_dim=None,
        num_vector_embeds=None, only_cross_attention=False, use_linear_projection=False,
    )  # fmt: skip
    assert take(folder).weights == take(saved).weights
    assert take(folder).config == take(saved).config


class TestWhichClassAGroupIs:
    def test_as_many_groups_as_classes_are_they_in_order(self, saved: Path) -> None:
        taken = take(saved)
        assert taken.config["classes"] == list(GROUPS)
        assert taken.config["transformer"]["beside"] == {"labels": [0, 1, 2]}
        assert "in this order: ink, oil, pastel" in taken.notes[-1]

    def test_the_pipelines_own_names_come_first(self, folder: Path) -> None:
        change(folder / "model_index.json", id2label={"0": "pastel", "1": "wash, ink", "2": "oil"})
        taken = take(folder)
        assert taken.config["transformer"]["beside"] == {"labels": [1, 2, 0]}
        assert "id2label" in taken.notes[-1]
        x_t, t = torch.randn(1, 4, 8, 8), torch.tensor([400])
        plain = ours(taken)
        out = plain.network(x_t, t - 1, class_labels=torch.tensor([1]), return_dict=False)[0]
        torch.testing.assert_close(plain.predict(x_t, t, torch.tensor([0])), out[:, :4])

    def test_fewer_groups_are_for_a_training_only(self, saved: Path) -> None:
        taken = take(saved, ("ink", "oil"), trained=False)
        assert taken.config["transformer"]["beside"] == {"labels": [0, 1]}
        assert "the first 2 of its classes" in taken.notes[-1]
        with pytest.raises(DataError, match="has 3 classes, the data have 2 groups"):
            take(saved, ("ink", "oil"))

    def test_more_groups_than_classes_are_refused(self, saved: Path) -> None:
        with pytest.raises(DataError, match="has 3 classes, the data have 4 groups"):
            take(saved, (*GROUPS, "wash"), trained=False)


def spoil(folder: Path, what: str) -> None:
    if what == "pickles":
        (folder / "transformer" / "diffusion_pytorch_model.safetensors").rename(
            folder / "transformer" / "diffusion_pytorch_model.bin"
        )
    elif what == "another noise":
        change(folder / "scheduler" / "scheduler_config.json", _class_name="EDMEulerScheduler")
    elif what == "another norm":
        change(folder / "transformer" / "config.json", norm_type="ada_norm_single")
    elif what == "other channels":
        change(folder / "transformer" / "config.json", out_channels=6)
    elif what == "no VAE":
        shutil.rmtree(folder / "vae")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("pickles", "no safetensors weights"),
        ("another noise", "EDMEulerScheduler"),
        ("another norm", "no DiTTransformer2DModel can be built"),
        ("other channels", "does not fit its configuration"),
        ("no VAE", "has no vae"),
    ],
)
def test_what_cannot_be_used_is_named(what: str, message: str, folder: Path) -> None:
    spoil(folder, what)
    with pytest.raises(DataError, match=message):
        take(folder)


def test_outputs_that_are_no_prediction_are_refused(tmp_path: Path) -> None:
    folder = tiny_pipelines.save("dit", tmp_path, out_channels=12)
    with pytest.raises(DataError, match="12 output channels for 4 input channels"):
        take(folder)


def test_a_size_that_the_pipeline_does_not_draw(saved: Path) -> None:
    with pytest.raises(DataError, match="makes images of 16 x 16, the recipe gives 32 x 32") as caught:
        take(saved, size=32)
    assert caught.value.fix == "--set data.size=16"


def test_a_network_over_its_base(saved: Path) -> None:
    assert take(saved / "transformer", base=str(saved)).weights == take(saved).weights


def test_no_adapters_and_no_single_files(saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({"transformer.a.lora_A.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(GudaError, match="there are none of dit models"):
        take(file, base=str(saved))
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(GudaError, match="reads no DiTTransformer2DModel from one file"):
        take(file, base=str(saved))


def test_it_is_told_by_its_index(saved: Path) -> None:
    plain = lookup.override({}, [], Path())
    found = Source(str(saved)).recipe_for(plain)
    assert (found.model.family, found.model.class_conditional) == ("dit", True)
    text = lookup.override({}, ["model.text_conditional=true"], Path())
    with pytest.raises(DataError, match="family dit, which reads no prompts"):
        Source(str(saved)).recipe_for(text)
    assert isinstance(known.family_of(found), DiT)


def test_a_pipeline_with_prompts_wants_a_recipe_with_them(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(DataError, match="family sdxl, which reads prompts") as caught:
        Source(str(tmp_path)).recipe_for(lookup.override({}, [], Path()))
    assert "paintings" in caught.value.fix


def test_a_recipe_that_names_it_says_that_it_is_told_classes() -> None:
    with pytest.raises(RecipeError, match=r"needs model\.class_conditional"):
        DiT().check_recipe(lookup.override({}, ["model.family=dit"], Path()))


RECIPE = """
name: mine
data: {path: paintings, size: 16, channels: 3}
latent: {check_scaling: false}
train: {steps: 3, batch_size: 4, warmup_steps: 1, params: "lora:2", lr: 1e-3}
unlearn: {steps: 2, batch_size: 4, lr: 5e-3, params: "lora:2", null_groups: 1}
score: {timesteps: 4, draws: 2, calibration: 0}
sample: {steps: 2}
attribution: {per_group: 2, timesteps: 2, projection: 16, mucs_steps: 1}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings", captions=False)
    (tmp_path / "my.yaml").write_text(RECIPE)
    return tmp_path


def after(cli: Cli) -> None:
    """Every command but training."""
    assert cli("unlearn", "--all", "--json").document["ran"] == 4
    cli("sample", "-n", "3", "--out", "q", "--guidance", "2")
    methods = "guda,similarity,nda,trak,d-trak,das,unlearn-query,mucs"
    documents = cli("score", "q", "--method", methods, "--json").documents
    assert len(documents) == 3 * 8
    assert {entry["group"] for entry in documents[0]["scores"]} == set(GROUPS)
    assert "every term was in the store" in cli("score", "q").stderr
    [bound] = cli(
        "score", "q/00000-ink.png", "--class", "oil", "--weighting", "elbo", "--grid", "all", "--json"
    ).documents
    assert (bound["class"], bound["unit"]) == ("oil", "nats")
    assert all(np.isfinite(entry["score"]) for entry in bound["scores"])
    cli("score", "q/00000-ink.png", "--map", "map.png")


@torch.no_grad()
def draws(folder: Path) -> Callable[[], None]:
    found = official(folder)
    return lambda: found([0], guidance_scale=1.0, num_inference_steps=2)


def test_every_command_works_on_one_taken_as_it_is(cli: Cli, home: Path, saved: Path) -> None:
    done = cli("train", "my.yaml", "--from", str(saved), "--as-is")
    assert "in this order: ink, oil, pastel" in done.stderr
    after(cli)
    [full] = here().records("register")
    cli("store", "export", full.key, "out")
    draws(home / "out")()
    cli("report", "--html", "report.html")


@pytest.mark.parametrize("params", ["lora:2", "full"])
def test_every_command_works_on_one_trained_from_it(params: str, cli: Cli, home: Path, saved: Path) -> None:
    cli("train", "my.yaml", "--from", str(saved), "--set", f"train.params={params}")
    [full] = here().records("train")
    if params == "full":
        cli("train", "--without", "ink")
        return
    after(cli)
    cli("train", "--each-group", "--seeds", "2")
    cli("score", "q", "--method", "logo")
    cli("report", "--against", "logo", "--json")
    cli("store", "export", full.key, "out")
    draws(home / "out")()
