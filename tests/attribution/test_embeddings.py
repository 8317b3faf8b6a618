"""Similarity: pixel embeddings by hand, and tiny CLIP and DINO models end to end from folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guda_cli.attribution.rivals import vision_encoder
from guda_cli.attribution.rivals.embeddings import PixelEncoder, unit
from guda_cli.attribution.rivals.similarity import cosine, load_encoder
from guda_cli.attribution.rivals.vision_input import read_preprocessing
from guda_cli.errors import DataError, GudaError, MissingError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")

CLIP_INPUT: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True, "size": {"shortest_edge": 20}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 16, "width": 16},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_convert_rgb": True,
    "do_normalize": True, "image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.26, 0.27],
}  # fmt: skip
VIT_INPUT: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True, "size": {"height": 16, "width": 16}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def images(count: int = 5, channels: int = 3, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def clip() -> torch.nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=12))


def clip_vision() -> torch.nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**SMALL))


def vit() -> torch.nn.Module:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**SMALL), add_pooling_layer=False)


def dinov2() -> torch.nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**SMALL))


MODELS: dict[str, tuple[Callable[[], torch.nn.Module], dict[str, Any], int]] = {
    "clip": (clip, CLIP_INPUT, 12),
    "clip vision": (clip_vision, CLIP_INPUT, 16),
    "dino": (vit, VIT_INPUT, 16),
    "dinov2": (dinov2, VIT_INPUT, 16),
}


def saved(folder: Path, name: str, seed: int = 0) -> Path:
    make, values, _ = MODELS[name]
    torch.manual_seed(seed)
    make().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    assert (folder / "model.safetensors").is_file()
    return folder


def by_transformers(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """The same embeddings by the library's own preprocessing and an ordinary call."""
    from transformers import AutoImageProcessor, AutoModel

    rgb = [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]
    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=rgb, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if model.config.model_type == "clip":
            projected = model.visual_projection(model.vision_model(**inputs).pooler_output)
            return np.asarray(projected)
        out = model(**inputs)
        pooled = model.config.model_type == "clip_vision_model"
        return np.asarray(out.pooler_output if pooled else out.last_hidden_state[:, 0])


@pytest.mark.parametrize("name", MODELS)
def test_end_to_end_from_a_folder(name: str, tmp_path: Path) -> None:
    folder, pixels = saved(tmp_path / "model", name), images()
    encoder = load_encoder(str(folder), pixels)
    found = encoder.embed(pixels)
    assert found.dtype == np.float32
    assert found.shape == (5, MODELS[name][2])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)
    expected = by_transformers(folder, pixels)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(encoder.embed(pixels[::-1], batch_size=2)[::-1], found, atol=1e-6)
    assert np.ptp(cosine(found, found)) > 1e-4


def test_grey_is_repeated_to_rgb(tmp_path: Path) -> None:
    encoder = load_encoder(str(saved(tmp_path / "model", "clip")), images())
    grey = images(3, channels=1)
    np.testing.assert_array_equal(encoder.embed(grey), encoder.embed(np.repeat(grey, 3, axis=1)))
    with pytest.raises(DataError, match="4 channels"):
        encoder.embed(images(1, channels=4))


def test_identity_is_of_the_bytes_not_of_the_path(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", "dino")
    shutil.copytree(one, tmp_path / "copy")
    same = vision_encoder.identity(one)
    (tmp_path / "copy" / "README.md").write_text("not part of it")
    assert vision_encoder.identity(tmp_path / "copy") == same == load_encoder(str(one), images()).identity
    assert vision_encoder.identity(saved(tmp_path / "other", "dino", seed=1)) != same
    values = {**VIT_INPUT, "resample": 3}
    (tmp_path / "copy" / "preprocessor_config.json").write_text(json.dumps(values))
    assert vision_encoder.identity(tmp_path / "copy") != same


def test_shards_are_read_and_all_count(tmp_path: Path) -> None:
    whole, shards = saved(tmp_path / "whole", "clip"), tmp_path / "shards"
    torch.manual_seed(0)
    clip().save_pretrained(shards, max_shard_size="20KB")
    (shards / "preprocessor_config.json").write_text(json.dumps(CLIP_INPUT))
    assert not (shards / "model.safetensors").exists()
    found = load_encoder(str(shards), images()).embed(images())
    np.testing.assert_allclose(found, load_encoder(str(whole), images()).embed(images()), atol=1e-6)
    first = sorted(shards.glob("model-*.safetensors"))[0]
    first.unlink()
    with pytest.raises(DataError, match="is missing"):
        load_encoder(str(shards), images())


def refused(folder: Path | str, kind: type[GudaError] = DataError) -> GudaError:
    with pytest.raises(kind) as caught:
        load_encoder(str(folder), images())
    return caught.value


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    (folder / "model.safetensors").unlink()
    torch.save(clip().state_dict(), folder / "pytorch_model.bin")
    error = refused(folder)
    assert "pytorch_model.bin" in error.message
    assert "pickle" in error.why
    assert "safe_serialization" in error.fix


CODE = """from pathlib import Path
Path(__file__).with_name("executed").touch()
"""


@pytest.mark.parametrize("place", ["config.json", "preprocessor_config.json", "text_config"])
def test_code_beside_an_encoder_is_neither_run_nor_asked_about(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where somebody would say yes to transformers' question."""
    folder = saved(tmp_path / "model", "clip")
    (folder / "code.py").write_text(CODE)
    path = folder / ("config.json" if place == "text_config" else place)
    entries = {"auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    config = json.loads(path.read_text())
    if place == "text_config":
        config["text_config"] |= entries
    path.write_text(json.dumps({**config, **(entries if place != "text_config" else {})}))
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("it asked"))
    capsys.readouterr()
    error = refused(folder)
    assert "code of its own (auto_map" in error.message
    assert "never run" in error.why
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.rglob("executed"))


def test_kernels_of_a_hub_are_not_fetched(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "owner/kernel"}))
    assert "attn_implementation" in refused(folder).message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../other.safetensors", "sub/x.safetensors", 5])
def test_an_index_names_only_safetensors_beside_it(name: object, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    shutil.copy(folder / "model.safetensors", tmp_path / "other.safetensors")
    torch.save(clip().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"logit_scale": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"names the shard '{name}'" in refused(folder).message


@pytest.mark.parametrize("places", [None, [], {}, "x"])
def test_an_index_that_leads_nowhere(places: object, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert "names no shards" in refused(folder).message


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"hidden_size": 2**16, "intermediate_size": 2**18}, "asks for"),
        ({"num_hidden_layers": 10**6}, "layers"),
    ],
)
def test_an_encoder_larger_than_its_weights_is_not_built(
    entries: dict[str, int], said: str, tmp_path: Path
) -> None:
    """Of 200 billion numbers: transformers would make up what the file lacks."""
    folder = saved(tmp_path / "model", "dino")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))
    assert said in refused(folder).why


def test_the_adapter_of_another_model(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "dino")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/model"}))
    assert "adapter" in refused(folder).message


def test_what_git_lfs_has_not_fetched(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    (folder / "model.safetensors").write_bytes(pointer)
    assert refused(folder).fix == "git lfs pull"


def test_not_a_vision_encoder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    error = refused(folder)
    assert "bert" in error.message
    assert "CLIP" in error.why
    assert "pixels" in error.fix


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_missing_or_broken_configuration(file: str, content: str | None, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "clip")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    assert file in refused(folder).message


def test_damaged_and_partial_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "model", "dinov2")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layernorm.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    error = refused(folder)
    assert "lacks weights" in error.message
    assert lost in error.why
    (folder / "model.safetensors").write_bytes(b"\x08" * 100)
    assert "not a readable safetensors" in refused(folder).message


def test_a_name_that_is_nothing(tmp_path: Path) -> None:
    for name in ("pixles", "./nowhere", str(tmp_path / "nowhere"), "a/b/c"):
        error = refused(name, UsageError)
        assert "pixels" in error.fix


def test_a_hub_that_cannot_be_reached() -> None:
    """The tests' environment is offline."""
    error = refused("someone/some-encoder", MissingError)
    assert "someone/some-encoder" in error.message
    assert "FOLDER" in error.fix


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"do_normalize": False}, "do_normalize is off"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
        ({"size": None}, "TypeError"),
        ({"size": {"longest_edge": 4}}, "KeyError"),
        ({"crop_size": 99}, "crop"),
        ({"resample": 77}, "77"),
    ],
)
def test_preprocessing_that_cannot_be_followed(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**CLIP_INPUT, **change}))
    with pytest.raises(DataError) as caught:
        read_preprocessing(tmp_path)
    assert reason in caught.value.why


def test_processor_config_of_newer_versions_is_read(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": CLIP_INPUT}))
    how = read_preprocessing(tmp_path)
    assert (how.height, how.width, how.crop) == (20, 20, (16, 16))


def test_pixels_are_centred_by_the_training_mean() -> None:
    training = np.array([0, 100], dtype=np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 1, 1, 2), np.uint8)
    encoder = PixelEncoder(training)
    found = encoder.embed(np.array([[[[60, 50]]], [[[50, 10]]], [[[50, 50]]]], dtype=np.uint8))
    np.testing.assert_allclose(found, [[1, 0], [0, -1], [0, 0]], atol=1e-6)


def test_centring_tells_images_apart() -> None:
    """Raw cosines of bright images are all near 1."""
    bright = (200 + images(40) // 10).astype(np.uint8)
    raw = unit(bright.reshape(40, -1).astype(np.float64))
    off = ~np.eye(40, dtype=bool)
    assert cosine(raw, raw)[off].min() > 0.99
    centred = PixelEncoder(bright).embed(bright)
    assert abs(cosine(centred, centred)[off]).max() < 0.5
    np.testing.assert_allclose(np.diag(cosine(centred, centred)), 1.0, rtol=1e-6)


def test_pixel_identity_is_of_the_training_mean() -> None:
    pixels = images(6)
    assert PixelEncoder(pixels).identity == PixelEncoder(pixels[::-1]).identity
    assert PixelEncoder(pixels).identity != PixelEncoder(pixels[:5]).identity
    assert load_encoder("pixels", pixels).identity == PixelEncoder(pixels).identity


def test_cosine_by_hand_and_query_by_query() -> None:
    queries, training = images(7, seed=1), images(9, seed=2)
    encoder = PixelEncoder(training)
    left, right = encoder.embed(queries), encoder.embed(training)
    found = cosine(left, right)
    a = queries[4].ravel() / 255.0 - training.mean(0).ravel() / 255.0
    b = training[3].ravel() / 255.0 - training.mean(0).ravel() / 255.0
    assert found[4, 3] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
    order = [5, 0, 4]
    np.testing.assert_array_equal(cosine(encoder.embed(queries[order]), right), found[order])
    assert cosine(left[:0], right).shape == (0, 9)
