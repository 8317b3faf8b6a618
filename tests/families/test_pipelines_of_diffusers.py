"""Each family of diffusers' pipelines asks, encodes, decodes and writes as the official pipeline does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.errors import DataError
from guda_cli.families import known
from guda_cli.families.family import Taken, Wanted
from guda_cli.families.flow import packed, unpacked
from guda_cli.sections import Recipe
from guda_cli.settings import lookup
from tests.families import tiny_pipelines
from tests.text_to_image.fixtures import cli, one_thread, paint
from tests.workflow.fixtures import Cli

__all__ = ["cli", "one_thread"]
SIDE = 16
CPU = torch.device("cpu")
PROMPT = "a cat, with a dog"


class Kind(NamedTuple):
    """How the official call of a family's network is read as ours."""

    x_t: Callable[[Any, Any], Tensor]
    t: Callable[[Any, Any], float]
    out: Callable[[Any], Tensor]


def whole(tokens: Tensor) -> Tensor:
    return unpacked(tokens, SIDE // 2, SIDE // 2)


KINDS = {
    "sdxl": Kind(lambda a, k: a[0], lambda a, k: float(a[1]) + 1, lambda out: out[0]),
    "sd3": Kind(lambda a, k: k["hidden_states"], lambda a, k: float(k["timestep"][0]), lambda out: out[0]),
    "flux": Kind(
        lambda a, k: whole(k["hidden_states"]),
        lambda a, k: 1000 * float(k["timestep"][0]),
        lambda out: whole(out[0]),
    ),
    "z-image": Kind(
        lambda a, k: torch.stack(a[0])[:, :, 0],
        lambda a, k: 1000 * (1 - float(a[1][0])),
        lambda out: -torch.stack(list(out[0]))[:, :, 0],
    ),
    "qwen-image": Kind(
        lambda a, k: whole(k["hidden_states"]),
        lambda a, k: 1000 * float(k["timestep"][0]),
        lambda out: whole(out[0]),
    ),
}


def recipe() -> Recipe:
    return lookup.override(
        {}, ["model.text_conditional=true", f"data.size={SIDE}", "data.channels=3"], Path()
    )


def stored(taken: Taken) -> dict[str, Any]:
    """The parts of what was taken over, as the store would have them."""
    parts = taken.parts.items()
    return {name: one if isinstance(one, bytes) else one.tensors() for name, one in parts}


class Opened(NamedTuple):
    """A pipeline as its own class opens it, and as it is taken over."""

    folder: Path
    official: Any
    taken: Taken
    family: Any

    @property
    def parts(self) -> dict[str, Any]:
        """What was taken over, as the store would have it."""
        return stored(self.taken)


def opened(name: str, folder: Path, **without: None) -> Opened:
    import diffusers

    family: Any = known.FAMILIES[name]
    wanted = Wanted(recipe(), (3, SIDE, SIDE), {}, lambda: None, lambda: torch.zeros(1, 3, SIDE, SIDE))
    taken = family.take(str(folder), None, wanted)
    official = getattr(diffusers, family.pipelines[0]).from_pretrained(folder, **without)
    official.set_progress_bar_config(disable=True)
    return Opened(folder, official, taken, family)


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    """Each family's tiny pipeline, made when it is first asked for; not to be changed."""
    made: dict[str, Opened] = {}

    def get(name: str) -> Opened:
        if name not in made:
            made[name] = opened(name, tiny_pipelines.save(name, tmp_path_factory.mktemp(name)))
        return made[name]

    return get


def ours(found: Opened) -> Any:
    """The denoiser of what was taken over, with its own bank of prompts."""
    family, config = found.family, found.taken.config
    network = family.sharing(config[family.network], found.taken.weights.tensors())
    encoder = family.encoder(found.parts, CPU)
    return family.denoiser(network, found.taken.schedule, PromptBank(encoder.rows, CPU))


def drawn(official: Any, seed: int = 0, steps: int = 1, **more: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    given = {"height": SIDE, "width": SIDE, "num_inference_steps": steps, "guidance_scale": 1.0, **more}
    if type(official).__name__ == "FluxPipeline":
        given["guidance_scale"] = 3.5  # which its network reads
    elif type(official).__name__ == "ZImagePipeline":
        given["guidance_scale"] = 0.0  # its name for none
    elif type(official).__name__ == "QwenImagePipeline":
        given.pop("guidance_scale")
    return official(PROMPT, generator=generator, **given)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_it_asks_the_network_as_the_pipeline_does(name: str, pipelines: Callable[[str], Opened]) -> None:
    found, kind = pipelines(name), KINDS[name]
    network = getattr(found.official, found.family.network)
    calls: list[tuple[Any, Any, Any]] = []
    hook = network.register_forward_hook(
        lambda module, args, kwargs, out: calls.append((args, kwargs, out)), with_kwargs=True
    )
    drawn(found.official, output_type="latent")
    hook.remove()
    args, kwargs, out = calls[0]
    denoiser = ours(found)
    t = kind.t(args, kwargs)
    assert t == pytest.approx(round(t), abs=1e-3)
    raw = denoiser.predict(kind.x_t(args, kwargs), torch.tensor([round(t)]), denoiser.bank.indices([PROMPT]))
    assert found.family.prediction(found.taken.config["scheduler"]) == (
        "epsilon" if name == "sdxl" else "flow"
    )
    torch.testing.assert_close(raw, kind.out(out).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_latents_are_the_pipelines_own(name: str, pipelines: Callable[[str], Opened]) -> None:
    found = pipelines(name)
    codec = found.family.codec(found.parts, CPU)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator())
    x0 = codec.encode(images)
    assert tuple(x0.shape[1:]) == codec.shape(SIDE)
    vae, pixels = found.official.vae, images.float() / 127.5 - 1.0
    if name == "qwen-image":
        z = vae.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0]
        expected = (z - 0.1) / 1.5
    else:
        z = vae.encode(pixels).latent_dist.mode()
        expected = (z - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    torch.testing.assert_close(x0, expected, rtol=1e-5, atol=1e-5)
    latents = drawn(found.official, output_type="latent").images
    picture = np.asarray(drawn(found.official, output_type="np").images[0])
    if latents.dim() == 3:
        latents = whole(latents)
    mine = codec.decode(latents)[0].permute(1, 2, 0).numpy() / 255.0
    assert np.abs(mine - picture).max() <= 0.51 / 255.0


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_what_is_written_draws_the_same_picture(
    name: str, pipelines: Callable[[str], Opened], tmp_path: Path
) -> None:
    found = pipelines(name)
    found.family.write(tmp_path, found.taken.weights.tensors(), found.taken.config, found.parts)
    again = type(found.official).from_pretrained(tmp_path, use_safetensors=True)
    again.set_progress_bar_config(disable=True)
    before, after = (np.asarray(drawn(one, 3, 2, output_type="np").images) for one in (found.official, again))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_prompt_is_the_same_alone_and_beside_longer_ones(
    name: str, pipelines: Callable[[str], Opened]
) -> None:
    found = pipelines(name)
    texts = ["a", "a cat", "a much longer text, of a dog and of a cat and of a house"]
    denoiser = ours(found)
    shape = found.family.codec(found.parts, CPU).shape(SIDE)
    x_t = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([10, 500, 900])
    alone = [
        denoiser.predict(x_t[i : i + 1], t[i : i + 1], denoiser.bank.indices([texts[i]])) for i in range(3)
    ]
    fresh = ours(found)
    together = fresh.predict(x_t, t, fresh.bank.indices(texts))
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-5, atol=1e-5)
    null = fresh.predict(x_t, t)
    torch.testing.assert_close(null, fresh.predict(x_t, t, fresh.bank.indices(["", "", ""])))
    assert not torch.allclose(null, together)


def test_flux_is_told_a_guidance_only_where_it_reads_one(tmp_path: Path) -> None:
    for reads in (True, False):
        folder = tiny_pipelines.save("flux", tmp_path / str(reads), guidance=reads)
        config = opened("flux", folder).taken.config["transformer"]
        assert config.get("beside") == ({"guidance": 3.5} if reads else None)


@torch.no_grad()
def test_stable_diffusion_3_without_t5(tmp_path: Path) -> None:
    folder = tiny_pipelines.save("sd3", tmp_path, with_t5=False)
    found = opened("sd3", folder, text_encoder_3=None, tokenizer_3=None)
    rows = found.family.encoder(found.parts, CPU).rows([PROMPT])
    text, _, pooled, _ = found.official.encode_prompt(PROMPT, None, None, do_classifier_free_guidance=False)
    torch.testing.assert_close(rows["text"], text)
    torch.testing.assert_close(rows["pooled"], pooled)
    found.family.write(tmp_path / "out", found.taken.weights.tensors(), found.taken.config, found.parts)
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["text_encoder_3"] == [None, None]


def test_packing_is_undone() -> None:
    x = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    assert packed(x).shape == (2, 6, 12)
    assert packed(x)[0, 0].tolist() == [0, 1, 6, 7, 24, 25, 30, 31, 48, 49, 54, 55]
    assert torch.equal(unpacked(packed(x), 4, 6), x)


@pytest.mark.parametrize("name", KINDS)
def test_a_family_is_told_by_its_pipeline(name: str, pipelines: Callable[[str], Opened]) -> None:
    found = known.family_at([str(pipelines(name).folder)])
    assert found is known.FAMILIES[name]


def spoil(folder: Path, what: str) -> None:
    if what == "a missing encoder":
        shutil.rmtree(folder / "text_encoder")
    elif what == "an encoder of another class":
        index = json.loads((folder / "model_index.json").read_text())
        index["text_encoder"] = ["transformers", "BertModel"]
        (folder / "model_index.json").write_text(json.dumps(index))
    elif what == "another noise":
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "LCMScheduler"}))
    elif what == "weights that do not fit":
        (path,) = (
            folder.glob("*/diffusion_pytorch_model.safetensors")
            if False
            else [next((folder / "vae").glob("*.safetensors"))]
        )

        weights = load_file(path)
        weights.pop(sorted(weights)[0])
        save_file(weights, path, {"format": "pt"})
    elif what == "code of its own":
        index = json.loads((folder / "model_index.json").read_text())
        index["text_encoder"] = ["my_module", "MyEncoder"]
        (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a missing encoder", "has no text_encoder"),
        ("an encoder of another class", "the text_encoder is a BertModel"),
        ("another noise", "LCMScheduler"),
        ("weights that do not fit", "does not fit its configuration"),
        ("code of its own", "is a class of its own module"),
    ],
)
@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_what_cannot_be_used_is_named(
    name: str, what: str, message: str, pipelines: Callable[[str], Opened], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pipelines(name).folder, tmp_path / "pipeline"))
    spoil(folder, what)
    wanted = Wanted(recipe(), (3, SIDE, SIDE), {}, lambda: None, lambda: torch.zeros(1, 3, SIDE, SIDE))
    with pytest.raises(DataError, match=message):
        known.FAMILIES[name].take(str(folder), None, wanted)


RECIPE = """
name: mine
data: {path: paintings, size: 16, channels: 3}
model: {text_conditional: true}
latent: {check_scaling: false}
train: {steps: 3, batch_size: 4, warmup_steps: 1, params: "lora:2", lr: 1e-3}
unlearn: {operator: "anchor:awss", steps: 2, batch_size: 4, lr: 5e-3, params: "lora:2"}
score: {timesteps: 4, draws: 2, calibration: 0}
sample: {steps: 2, guidance: 2.0}
attribution: {per_group: 2, timesteps: 2, projection: 16, mucs_steps: 1}
"""


@pytest.mark.parametrize("name", KINDS)
def test_every_command_works_with_it(
    name: str, pipelines: Callable[[str], Opened], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, one_thread: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings")
    (tmp_path / "my.yaml").write_text(RECIPE)
    cli("train", "my.yaml", "--from", str(pipelines(name).folder))
    assert cli("unlearn", "--group", "ink", "--group", "oil", "--json").document["ran"] == 2
    cli("sample", "-n", "2", "--out", "q")
    documents = cli("score", "q", "--method", "guda,unlearn-query,das", "--json").documents
    assert len(documents) == 6
    assert {entry["group"] for entry in documents[0]["scores"]} == {"ink", "oil"}
    assert "every term was in the store" in cli("score", "q").stderr
    cli("score", "q/00000.png", "--map", "map.png")


@pytest.mark.parametrize("name", KINDS)
def test_operators_rivals_and_the_oracle_work_with_it(
    name: str, pipelines: Callable[[str], Opened], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, one_thread: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings")
    (tmp_path / "my.yaml").write_text(RECIPE)
    cli("train", "my.yaml", "--from", str(pipelines(name).folder))
    for operator in ("retrack", "neggrad", "erasediff", "siss", "esd", "anchor:matched"):
        done = cli("unlearn", "--group", "ink", "--operator", operator, "--json")
        assert done.document["ran"] == 1, operator
    if name != "sdxl":
        done = cli("unlearn", "--group", "ink", "--params", "cross-attn-kv", code=3)
        assert "among the image's own tokens" in done.stderr
    else:
        cli("unlearn", "--group", "ink", "--params", "cross-attn-kv")
    cli("train", "--each-group")
    cli("sample", "-n", "1", "--out", "q")
    documents = cli("score", "q", "--method", "logo,mucs,d-trak,similarity", "--json").documents
    assert [document["method"] for document in documents] == ["logo", "mucs", "d-trak", "similarity"]
    cli("report", "--html", "report.html", "--gallery", "--method", "logo")
    assert "data:image/" in Path("report.html").read_text()


def adapter(found: Opened, file: Path, style: str) -> Path:
    """A random LoRA of two layers of the family's network, under the names that `style` has."""
    part, generator = found.family.network, torch.Generator().manual_seed(5)
    network = getattr(found.official, part)
    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith((".to_q", ".to_v"))
    ][:2]
    weights = {}
    for name, module in layers:
        down = torch.randn(2, module.in_features, generator=generator)
        up = torch.randn(module.out_features, 2, generator=generator)
        if style == "peft":
            weights |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
        elif style == "bare":
            weights |= {f"diffusion_model.{name}.lora_A.weight": down}
            weights |= {f"diffusion_model.{name}.lora_B.weight": up}
        else:  # kohya: 0.5 of the product
            own = f"lora_{part}_{name.replace('.', '_')}"
            weights |= {f"{own}.lora_down.weight": down, f"{own}.lora_up.weight": up}
            weights[f"{own}.alpha"] = torch.tensor(1.0)
    save_file(weights, file)
    return file


def taken(name: str, source: Path, base: Path | None) -> Taken:
    wanted = Wanted(recipe(), (3, SIDE, SIDE), {}, lambda: None, lambda: torch.zeros(1, 3, SIDE, SIDE))
    return known.FAMILIES[name].take(str(source), None if base is None else str(base), wanted)


@pytest.mark.parametrize(
    ("name", "style"),
    [
        *((name, "peft") for name in KINDS),
        ("sdxl", "kohya"), ("z-image", "bare"), ("qwen-image", "bare"),
    ],
)  # fmt: skip
def test_an_adapter_is_merged_as_diffusers_merges_it(
    name: str, style: str, pipelines: Callable[[str], Opened], tmp_path: Path
) -> None:
    found = pipelines(name)
    file = adapter(found, tmp_path / "lora.safetensors", style)
    mine = taken(name, file, found.folder).weights.tensors()
    official = type(found.official).from_pretrained(found.folder)
    official.load_lora_weights(str(file))
    official.fuse_lora(components=[found.family.network])
    official.unload_lora_weights()
    theirs = getattr(official, found.family.network).state_dict()
    before = found.taken.weights.tensors()
    assert sum(not torch.equal(mine[key], before[key]) for key in mine) == 2
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-5, atol=1e-5)


def test_an_adapter_of_another_family_is_refused(pipelines: Callable[[str], Opened], tmp_path: Path) -> None:
    file = adapter(pipelines("sd3"), tmp_path / "lora.safetensors", "peft")
    with pytest.raises(DataError, match="the adapter"):
        taken("sdxl", file, pipelines("sdxl").folder)
    with pytest.raises(DataError, match="does not belong to this transformer"):
        taken("flux", file, pipelines("flux").folder)


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_a_network_over_its_base(name: str, pipelines: Callable[[str], Opened]) -> None:
    found = pipelines(name)
    alone = taken(name, found.folder / found.family.network, found.folder)
    assert alone.weights == found.taken.weights
    assert alone.parts.keys() == found.taken.parts.keys()
    assert all(bytes(one) == bytes(found.taken.parts[name]) for name, one in alone.parts.items())
