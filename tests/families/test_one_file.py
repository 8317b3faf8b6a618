"""Checkpoints in one file: every weight is that of the pipeline they were made from; bad ones are named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.pipeline_one_file import _converter
from guda_cli.diffusion.weight_file import PackedWeights
from guda_cli.errors import DataError, UsageError
from guda_cli.families import known
from tests.families import one_files, tiny_pipelines
from tests.families.one_files import NETWORK, Weights, part
from tests.families.test_pipelines_of_diffusers import RECIPE, Opened, opened, pipelines, stored, taken
from tests.text_to_image.fixtures import cli, one_thread, paint
from tests.workflow.fixtures import Cli

__all__ = ["cli", "one_thread", "pipelines"]
Pipelines = Callable[[str], Opened]


def written(weights: Weights, path: Path) -> Path:
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)
    return path


def other(name: str, folder: Path) -> Opened:
    """A pipeline of the same kind with other weights: nothing of it may stand for what is in the file."""
    return opened(name, tiny_pipelines.save(name, folder, seed=7))


def check_equal(mine: Any, theirs: Any, parts: Any) -> None:
    assert mine.weights == theirs.weights
    for name in parts:
        found, expected = mine.parts[name].tensors(), theirs.parts[name].tensors()
        plain = {key.removeprefix("text_model."): value for key, value in found.items()}
        plain.pop("embeddings.position_ids", None)
        for key, value in expected.items():
            assert torch.equal(plain[key.removeprefix("text_model.")], value), (name, key)


def test_stable_diffusion_xl(pipelines: Pipelines, tmp_path: Path) -> None:
    found, base = pipelines("sdxl"), other("sdxl", tmp_path)
    file = written(one_files.sdxl(found.folder), tmp_path / "xl.safetensors")
    mine = taken("sdxl", file, base.folder)
    check_equal(mine, found.taken, ["vae", "text_encoder", "text_encoder_2"])
    assert mine.weights != base.taken.weights
    assert taken("sdxl", file, found.folder).parts == found.taken.parts  # byte for byte: it is the base's
    assert mine.notes[-1] == f"of {file} are the unet, vae, text_encoder, text_encoder_2"


def test_it_is_read_as_diffusers_reads_it(pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("sdxl")
    file = written(one_files.sdxl(found.folder), tmp_path / "xl.safetensors")
    mine = taken("sdxl", file, found.folder)
    official = type(found.official).from_single_file(
        str(file), config=str(found.folder), local_files_only=True
    )
    theirs = official.unet.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.weights.tensors().items())
    rows = found.family.encoder(stored(mine), torch.device("cpu")).rows(["a cat"])
    text, _, pooled, _ = official.encode_prompt("a cat", do_classifier_free_guidance=False)
    torch.testing.assert_close(rows["text"], text)
    torch.testing.assert_close(rows["pooled"], pooled)


def test_half_precision_becomes_float32(pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("sdxl")
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in one_files.sdxl(found.folder).items()
    }
    mine = taken("sdxl", written(halves, tmp_path / "xl.safetensors"), found.folder).weights.tensors()
    for name, value in found.taken.weights.tensors().items():
        assert torch.equal(mine[name], value.half().float())


def with_plain_projection(folder: Path) -> Opened:
    """In files of Stable Diffusion 3 the first text encoder's projection is not kept."""
    made = tiny_pipelines.save("sd3", folder, seed=3)
    weights = part(made, "text_encoder")
    weights["text_projection.weight"] = torch.eye(16)
    save_file(weights, made / "text_encoder" / "model.safetensors", {"format": "pt"})
    return opened("sd3", made)


def test_stable_diffusion_3(tmp_path: Path) -> None:
    found, base = with_plain_projection(tmp_path / "made"), other("sd3", tmp_path / "base")
    file = written(one_files.sd3(found.folder), tmp_path / "sd3.safetensors")
    mine = taken("sd3", file, base.folder)
    check_equal(mine, found.taken, ["vae", "text_encoder", "text_encoder_2", "text_encoder_3"])


def test_what_is_not_in_the_file_is_the_bases_and_told(tmp_path: Path, pipelines: Pipelines) -> None:
    found, base = pipelines("sd3"), other("sd3", tmp_path)
    file = written(one_files.sd3(found.folder, texts=False), tmp_path / "sd3.safetensors")
    mine = taken("sd3", file, base.folder)
    check_equal(mine, found.taken, ["vae"])
    check_equal(
        mine, type(base.taken)(mine.weights, {}, mine.schedule, base.taken.parts),
        ["text_encoder", "text_encoder_2", "text_encoder_3"],
    )  # fmt: skip
    assert mine.notes[-1] == (
        f"of {file} are the transformer, vae; of {base.folder} the text_encoder, text_encoder_2, "
        "text_encoder_3"
    )


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", ["z-image", "qwen-image", "sd3"])
def test_a_transformer_alone(name: str, bare: bool, pipelines: Pipelines, tmp_path: Path) -> None:
    found, base = pipelines(name), other(name, tmp_path)
    make: Any = {
        "z-image": one_files.z_image, "qwen-image": one_files.qwen_image,
        "sd3": lambda folder: one_files.joint(part(folder, "transformer")),
    }  # fmt: skip
    weights = make[name](found.folder)
    if bare:
        weights = {key.removeprefix(NETWORK): value for key, value in weights.items()}
    mine = taken(name, written(weights, tmp_path / "alone.safetensors"), base.folder)
    assert mine.weights == found.taken.weights
    assert mine.parts == base.taken.parts


def test_a_unet_alone_under_either_names(pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("sdxl")
    ours = part(found.folder, "unet")
    first = one_files.unet(ours)
    for number, weights in enumerate(
        (first, {key.removeprefix(NETWORK): value for key, value in first.items()}, ours)
    ):
        file = written(weights, tmp_path / f"{number}.safetensors")
        assert taken("sdxl", file, found.folder).weights == found.taken.weights


def test_the_names_of_flux_at_its_true_width() -> None:
    """Its converter knows that alone, so that there are no numbers here."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=False)
        wanted = network.state_dict()
        weights = one_files.flux(dict(wanted))
        part = known.FAMILIES["flux"].network_part  # type: ignore[attr-defined]
        found = _converter(part, ("",))(weights, dict(network.config))
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in wanted.items()
    }


def bad(what: str, weights: Weights) -> Weights:
    if what == "no network":
        return {name: value for name, value in weights.items() if not name.startswith(NETWORK)}
    if what == "a tensor less":
        return {name: value for name, value in weights.items() if not name.endswith("time_embed.0.bias")}
    if what == "an encoder's tensor less":
        return {name: v for name, v in weights.items() if not name.endswith("1.model.ln_final.bias")}
    if what == "not finite":
        return {**weights, f"{NETWORK}time_embed.0.bias": torch.full((32,), torch.nan)}
    if what == "another shape":
        return {**weights, f"{NETWORK}out.2.weight": torch.zeros(4, 3, 3, 3)}
    if what == "float8":
        name = f"{NETWORK}time_embed.0.weight"
        return {**weights, name: weights[name].to(torch.float8_e4m3fn)}
    if what == "scales":
        return {**weights, f"{NETWORK}time_embed.0.scale_weight": torch.ones(())}
    if what == "codes":
        return {**weights, f"{NETWORK}time_embed.0.weight": torch.zeros(4, 4, dtype=torch.int8)}
    if what == "another encoder":
        return {**weights, "text_encoders.qwen3_4b.transformer.model.norm.weight": torch.zeros(4)}
    raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no network", "has no unet"),
        ("a tensor less", r"time_embedding\.linear_1\.bias' is missing"),
        ("an encoder's tensor less", r"final_layer_norm\.bias' is missing"),
        ("not finite", "NaN|finite"),
        ("another shape", r"conv_out\.weight' has another shape"),
        ("float8", r"time_embed\.0\.weight' is float8"),
        ("scales", r"the weights are quantised: .*scale_weight"),
        ("codes", r"the weights are quantised: .* is int8"),
        ("another encoder", "has a text encoder that is none of this kind of pipeline"),
    ],
)
def test_a_bad_file_is_named(what: str, message: str, pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("sdxl")
    file = written(bad(what, one_files.sdxl(found.folder)), tmp_path / "bad.safetensors")
    with pytest.raises(DataError) as caught:
        taken("sdxl", file, found.folder)
    assert re.search(message, f"{caught.value.message} {caught.value.why}"), caught.value
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("of", "base", "says"),
    [
        ("sdxl", "sd3", "Stable Diffusion XL"),
        ("sdxl", "flux", "Stable Diffusion XL"),
        ("sd3", "sdxl", "Stable Diffusion 3"),
        ("sd3", "flux", "Stable Diffusion 3"),
        ("z-image", "qwen-image", "Z-Image"),
        ("sd3", "z-image", "Stable Diffusion 3"),
    ],
)
def test_a_file_of_another_family(
    of: str, base: str, says: str, pipelines: Pipelines, tmp_path: Path
) -> None:
    make: Any = {"sdxl": one_files.sdxl, "sd3": one_files.sd3, "z-image": one_files.z_image}[of]
    file = written(make(pipelines(of).folder), tmp_path / "one.safetensors")
    with pytest.raises(DataError) as caught:
        taken(base, file, pipelines(base).folder)
    assert says in f"{caught.value.message} {caught.value.why}", caught.value


def test_nothing_is_unpickled(pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("sdxl")
    file = tmp_path / "xl.safetensors"
    torch.save(one_files.sdxl(found.folder), file)
    with pytest.raises(DataError, match="is a pickle in spite of its name"):
        taken("sdxl", file, found.folder)
    base = Path(shutil.copytree(found.folder, tmp_path / "base"))
    (base / "vae" / "diffusion_pytorch_model.safetensors").rename(base / "vae" / "model.bin")
    file = written(one_files.unet(part(found.folder, "unet")), tmp_path / "unet.safetensors")
    with pytest.raises(DataError, match="no safetensors weights"):
        taken("sdxl", file, base)


def test_a_base_of_configurations_alone(pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("sdxl")
    base = Path(shutil.copytree(found.folder, tmp_path / "base"))
    for weights in base.rglob("*.safetensors"):
        weights.unlink()
    file = written(one_files.sdxl(found.folder), tmp_path / "xl.safetensors")
    assert taken("sdxl", file, base).weights == found.taken.weights
    assert not found.family.begins_at(str(file), str(base))
    assert found.family.begins_at(str(file), str(found.folder))
    with pytest.raises(DataError, match="has no weights"):
        taken("sdxl", written(one_files.unet(part(found.folder, "unet")), tmp_path / "u.safetensors"), base)


def test_gguf(pipelines: Pipelines, tmp_path: Path) -> None:
    found = pipelines("flux")
    file = tmp_path / "flux-Q4.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(64))
    with pytest.raises(DataError, match="is a GGUF file"):
        taken("flux", file, found.folder)
    folder = Path(shutil.copytree(found.folder, tmp_path / "pipeline"))
    shutil.rmtree(folder / "transformer")
    (folder / "transformer").mkdir()
    shutil.copy(found.folder / "transformer" / "config.json", folder / "transformer")
    shutil.copy(file, folder / "transformer")
    with pytest.raises(DataError, match="is a GGUF file"):
        taken("flux", folder, None)


def test_a_pipeline_in_float8(pipelines: Pipelines, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipelines("flux").folder, tmp_path / "pipeline"))
    weights = {key: value.to(torch.float8_e4m3fn) for key, value in part(folder, "transformer").items()}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"the weights are quantised: .* is float8"):
        taken("flux", folder, None)


def test_a_base_is_asked_for(pipelines: Pipelines, tmp_path: Path) -> None:
    file = written(one_files.sdxl(pipelines("sdxl").folder), tmp_path / "xl.safetensors")
    with pytest.raises(UsageError, match="needs the pipeline that it belongs to"):
        taken("sdxl", file, None)


@pytest.mark.parametrize("name", ["sd3", "flux", "z-image"])
def test_a_vae_without_shift(name: str, pipelines: Pipelines, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipelines(name).folder, tmp_path / "pipeline"))
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shift_factor": None}))
    with pytest.raises(DataError, match="no shift_factor"):
        taken(name, folder, None)


@pytest.mark.parametrize("entry", [None, [None, None], "absent"])
def test_an_index_without_an_optional_part(entry: Any, pipelines: Pipelines, tmp_path: Path) -> None:
    """As older ones are; what lies beside the index all the same is not the pipeline's."""
    folder = Path(shutil.copytree(pipelines("sd3").folder, tmp_path / "pipeline"))
    index = json.loads((folder / "model_index.json").read_text())
    for name in ("text_encoder_3", "tokenizer_3"):
        index[name] = entry
        if entry == "absent":
            del index[name]
    (folder / "model_index.json").write_text(json.dumps(index))
    found = taken("sd3", folder, None)
    assert bytes(found.parts["text_encoder_3"]) == bytes(PackedWeights({}, ""))
    rows = known.FAMILIES["sd3"].encoder(stored(found), torch.device("cpu")).rows(["a cat"])  # type: ignore[attr-defined]
    assert not rows["text"][:, 77:].any()


def test_every_command_works_with_one_file(
    cli: Cli, pipelines: Pipelines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings")
    (tmp_path / "my.yaml").write_text(RECIPE)
    folder = pipelines("sdxl").folder
    written(one_files.sdxl(folder), tmp_path / "xl.safetensors")
    done = cli("train", "my.yaml", "--from", "xl.safetensors", "--base", str(folder), "--as-is")
    assert "are the unet, vae, text_encoder, text_encoder_2" in " ".join(done.stderr.split())
    assert "not the base's" not in done.stderr
    assert cli("unlearn", "--group", "ink", "--no-null", "--json").document["ran"] == 1
    cli("sample", "-n", "1", "--out", "q")
    assert len(cli("score", "q", "--json").documents) == 1
