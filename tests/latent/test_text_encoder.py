"""Running and training the text encoder; transformers and diffusers are the check."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection

from guda_cli.checkpoints.pipeline_folder import read_pipeline
from guda_cli.checkpoints.weights import prefixed_text_names
from guda_cli.errors import DataError, MissingError, UsageError
from guda_cli.latent.text_encoder import TextEncoder, build_text_encoder, load_clip, text_config
from guda_cli.latent.text_training import captions_at, train_text_encoder
from guda_cli.latent.tokenizer import load_tokenizer, tokenize, train_tokenizer
from guda_cli.sections import TextSpec
from guda_cli.training import loop
from guda_cli.training.run_state import RunState

STYLES = {"thick outlines": 0, "bold strokes": 0, "smooth gradients": 1, "soft shading": 1}
SPEC = TextSpec(hidden_size=16, layers=1, heads=2, vocabulary=540, steps=4, batch_size=6, seed=1)
TEXTS = ["", "a cat, artistic style featuring thick outlines", "dog", "cat " * 100]


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return train_tokenizer(TEXTS, SPEC.vocabulary)


@pytest.fixture(scope="module")
def encoder(files: dict[str, str]) -> TextEncoder:
    config = text_config(SPEC, load_tokenizer(files))
    return TextEncoder(config, dict(build_text_encoder(config, 0).state_dict()), files)


def test_the_configuration_fits_the_tokenizer(files: dict[str, str]) -> None:
    tokenizer = load_tokenizer(files)
    config = text_config(SPEC, tokenizer)
    parsed = CLIPTextConfig.from_dict(config)
    assert {name: getattr(parsed, name) for name in config} == config
    assert parsed.vocab_size == len(tokenizer)
    one, same, other = (build_text_encoder(config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(DataError, match="CLIPTextModel"):
        build_text_encoder({**config, "num_attention_heads": 3}, 0)


def test_embeddings_are_the_pipeline_s(saved: Path) -> None:
    """`StableDiffusionPipeline` on a folder that diffusers wrote itself."""
    pipeline = StableDiffusionPipeline.from_pretrained(saved, use_safetensors=True)
    parts = read_pipeline(saved).components
    own = TextEncoder(parts.text_config, parts.text_encoder.tensors(), parts.tokenizer)
    texts = ["a cat", "dog, cat", ""]
    expected, _ = pipeline.encode_prompt(texts, torch.device("cpu"), 1, False)
    found = own.encode(texts)
    assert found.shape == (3, 77, 16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_text_s_embedding_does_not_depend_on_the_others(encoder: TextEncoder) -> None:
    texts = [f"{text} {i}" for i in range(40) for text in TEXTS]
    together, units = encoder.encode(texts), encoder.unit_embeddings(texts)
    for i in (0, 63, 64, 159):
        torch.testing.assert_close(encoder.encode([texts[i]])[0], together[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoder.unit_embeddings([texts[i]])[0], units[i], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(160))
    assert encoder.encode([]).shape == (0, 77, 16)


def test_a_unit_embedding_is_the_state_at_the_first_end_token(encoder: TextEncoder) -> None:
    states = encoder.encode(TEXTS)
    ends = [encoder.tokenizer(text, truncation=True, max_length=77).input_ids for text in TEXTS]
    at_end = torch.stack([states[i, len(ids) - 1] for i, ids in enumerate(ends)])
    expected = at_end / at_end.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.unit_embeddings(TEXTS), expected, atol=1e-5, rtol=1e-5)


def test_older_names(encoder: TextEncoder, files: dict[str, str]) -> None:
    config, weights = text_config(SPEC, encoder.tokenizer), dict(encoder.model.state_dict())
    old = TextEncoder(config, prefixed_text_names(weights), files)
    assert torch.equal(old.encode(TEXTS), encoder.encode(TEXTS))


def test_parts_that_do_not_belong_together_are_refused(files: dict[str, str]) -> None:
    config = text_config(SPEC, load_tokenizer(files))
    weights = dict(build_text_encoder(config, 0).state_dict())
    with pytest.raises(DataError, match="do not fit"):
        TextEncoder({**config, "hidden_size": 32}, weights, files)
    small = {**config, "vocab_size": 500}
    with pytest.raises(DataError, match="more tokens"):
        TextEncoder(small, dict(build_text_encoder(small, 0).state_dict()), files)
    weights["final_layer_norm.weight"] = torch.full((16,), torch.nan)
    with pytest.raises(DataError, match="NaN"):
        TextEncoder(config, weights, files)


def whole_clip(files: dict[str, str], folder: Path) -> CLIPModel:
    torch.manual_seed(0)
    text = text_config(SPEC, load_tokenizer(files))
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    model.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return model


def by_transformers(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found = model.text_projection(model.text_model(ids).pooler_output)
    return torch.nn.functional.normalize(found, dim=-1)


def test_a_clip_of_the_user_s(files: dict[str, str], tmp_path: Path) -> None:
    model = whole_clip(files, tmp_path)
    found = load_clip(str(tmp_path)).unit_embeddings(TEXTS)
    assert found.shape == (4, 12)
    ids = tokenize(load_tokenizer(files), TEXTS)
    torch.testing.assert_close(found, by_transformers(model, ids), atol=1e-5, rtol=1e-5)


def test_the_text_side_of_a_clip_alone(files: dict[str, str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig.from_dict({**text_config(SPEC, load_tokenizer(files)), "projection_dim": 10})
    model = CLIPTextModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    found = load_clip(str(tmp_path)).unit_embeddings(TEXTS)
    with torch.no_grad():
        embeds = model(tokenize(load_tokenizer(files), TEXTS)).text_embeds
    torch.testing.assert_close(found, embeds / embeds.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"num_hidden_layers": 10**6}, "1,000,000 layers"),
        ({"hidden_size": 2**16, "intermediate_size": 2**18}, "text encoder|do not fit|cannot build"),
        ({"auto_map": {"AutoModel": "code.M"}}, "code of its own"),
        ({"attn_implementation": "owner/kernel"}, "code of its own"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_a_clip_that_is_not_built(
    entries: dict[str, Any], said: str, files: dict[str, str], tmp_path: Path
) -> None:
    """One larger than its weights is not, nor one with code of its own."""
    whole_clip(files, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"] |= entries
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError) as caught:
        load_clip(str(tmp_path))
    assert re.search(said, f"{caught.value.message} | {caught.value.why}")


def test_what_is_no_clip_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        load_clip(str(tmp_path / "nowhere"))
    with pytest.raises(MissingError, match="openai/none"):
        load_clip("openai/none")
    whole_clip(files, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="bert"):
        load_clip(str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="no safetensors weights"):
        load_clip(str(tmp_path))


def problem(count: int = 24) -> tuple[list[str], Tensor]:
    """Prompts, and 4x4 latents that show their style in the first channel's mean."""
    names = [list(STYLES)[i % 4] for i in range(count)]
    prompts = [f"a {'cat' if i % 3 else 'dog'}, artistic style featuring {s}" for i, s in enumerate(names)]
    x0 = 0.3 * torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x0[:, 0] += torch.tensor([1.5 if STYLES[name] else -1.5 for name in names]).view(-1, 1, 1)
    return prompts, x0


def run(
    resume: RunState | None = None, hooks: loop.Hooks | None = None, spec: TextSpec = SPEC
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    return train_text_encoder(*problem(600), spec, resume=resume, hooks=hooks or loop.Hooks())


def test_resumed_at_every_save_ends_in_the_same_bits() -> None:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole, config, files = run(hooks=loop.Hooks(save=save, save_seconds=0.0))
    assert sorted(states) == [1, 2, 3]
    for step, data in states.items():
        again, *same = run(RunState.from_bytes(step, data))
        assert same == [config, files]
        assert all(torch.equal(again[name], value) for name, value in whole.items()), step
    TextEncoder(config, whole, files)


def test_no_steps_leave_the_random_initialisation() -> None:
    weights, config, files = run(spec=dataclasses.replace(SPEC, steps=0))
    assert files == train_tokenizer(problem(600)[0], SPEC.vocabulary)
    untrained = build_text_encoder(config, SPEC.seed).state_dict()
    assert weights.keys() == untrained.keys()
    assert all(torch.equal(weights[name], value) for name, value in untrained.items())


def test_descriptors_that_look_alike_come_out_close() -> None:
    spec = dataclasses.replace(SPEC, steps=60, batch_size=32, lr=3e-3)
    told: list[float] = []
    weights, config, files = run(spec=spec, hooks=loop.Hooks(on_step=told.append))
    units = TextEncoder(config, weights, files).unit_embeddings(list(STYLES)).double()
    cosine = (units @ units.T).numpy()
    look = np.array(list(STYLES.values()))
    alike = (look[:, None] == look[None, :]) & ~np.eye(4, dtype=bool)
    assert cosine[alike].min() > cosine[look[:, None] != look[None, :]].max() + 0.8
    assert np.mean(told[-10:]) < np.mean(told[:10])


def test_captions_are_prompts_styles_and_single_descriptors() -> None:
    prompt = "a cat, artistic style featuring one, two, three"
    seen = {text for step in range(30) for text in captions_at([prompt] * 4 + ["plain"], SPEC, step)}
    assert {"one", "two", "three", "plain", "two, one, three", prompt} <= seen
    for text in seen - {"plain"}:
        style = text.removeprefix("a cat, artistic style featuring ")
        parts = style.split(", ")
        assert len(set(parts)) == len(parts)
        assert set(parts) <= {"one", "two", "three"}
        assert len(parts) == 3 or text == style
    assert captions_at([prompt] * 9, SPEC, 3) == captions_at([prompt] * 9, SPEC, 3)
    assert captions_at([prompt] * 9, SPEC, 3) != captions_at([prompt] * 9, SPEC, 4)


def test_the_first_loss_by_hand() -> None:
    """Two captions, three images: cross-entropy both ways, the twins sharing their weight."""
    told: list[float] = []
    prompts, x0 = ["cat", "dog", "cat"], torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    spec = dataclasses.replace(SPEC, steps=1, batch_size=3)
    states: list[RunState] = []
    two = dataclasses.replace(spec, steps=2, lr=1e-12)  # so slow that the saved weights are the first ones
    hooks = loop.Hooks(save=states.append, save_seconds=0.0)
    _, config, files = train_text_encoder(prompts, x0, two, hooks=hooks)
    train_text_encoder(prompts, x0, spec, hooks=loop.Hooks(on_step=told.append))
    encoder = TextEncoder(config, build_text_encoder(config, 1).state_dict(), files)
    weights = {k.removeprefix("image."): v for k, v in states[0].weights.items() if k.startswith("image.")}
    y = x0
    for i, stride in ((0, 1), (3, 2), (6, 2), (9, 1)):
        y = torch.nn.functional.conv2d(y, weights[f"{i}.weight"], weights[f"{i}.bias"], stride, 1)
        y = torch.nn.functional.group_norm(y, 8, weights[f"{i + 1}.weight"], weights[f"{i + 1}.bias"])
        y = torch.nn.functional.silu(y)
    images = y.mean((2, 3)) @ weights["14.weight"].T + weights["14.bias"]
    cosine = torch.nn.functional.normalize(images, dim=1) @ encoder.unit_embeddings(prompts).T
    logits = (cosine * 5.0).double()
    shares = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])
    both = [-(shares * table.log_softmax(1)).sum(1).mean() for table in (logits, logits.T)]
    assert told == [pytest.approx(float(sum(both)) / 2, rel=1e-4)]


def test_pixels_serve_as_well_and_counts_must_agree() -> None:
    prompts, x0 = problem(6)
    pixels = (x0.clamp(-1, 1) * 127 + 128).to(torch.uint8)
    spec = dataclasses.replace(SPEC, steps=1)
    weights, *_ = train_text_encoder(prompts, pixels, spec, hooks=loop.Hooks())
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    with pytest.raises(DataError, match="5 prompts do not describe 6"):
        train_text_encoder(prompts[:5], x0, spec, hooks=loop.Hooks())
    with pytest.raises(loop.Diverged) as caught:
        train_text_encoder(prompts, x0, dataclasses.replace(spec, steps=20, lr=1e30), hooks=loop.Hooks())
    assert "text.lr" in caught.value.fix
