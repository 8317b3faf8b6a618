"""Pipeline folders read into plain values: all layouts of weights, and everything that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from guda_cli.checkpoints.components import Components
from guda_cli.checkpoints.model_source import register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline, read_unet_folder
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError, GudaError, MissingError, UsageError

Change = Callable[..., None]
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def file(folder: Path, part: str) -> Path:
    return folder / part / f"{WEIGHTS[part]}.safetensors"


def tensors(path: Path) -> Weights:
    """Copies, so that the file can be written anew (`load_file` maps it)."""
    return dict(load(path.read_bytes()))


def equal(a: Pipeline, b: Pipeline) -> bool:
    return (a.unet, a.unet_config, a.scheduler_config, a.components.to_blobs()) == (
        b.unet, b.unet_config, b.scheduler_config, b.components.to_blobs(),
    )  # fmt: skip


def refused(source: Path | str, base: str | None = None, kind: type[GudaError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        register_source(str(source), base)
    error = caught.value
    return f"{error.message} | {error.why} | {error.fix}"


def same(have: Weights, want: Weights) -> bool:
    return have.keys() == want.keys() and all(torch.equal(have[name], want[name]) for name in want)


def test_networks_built_from_what_was_read_are_those_saved(saved: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    pipeline = read_pipeline(str(saved))
    parts = pipeline.components
    text_config = CLIPTextConfig.from_dict(dict(parts.text_config))
    for data, network, part in (
        (pipeline.unet, UNet2DConditionModel.from_config(dict(pipeline.unet_config)), "unet"),
        (parts.vae, AutoencoderKL.from_config(dict(parts.vae_config)), "vae"),
        (parts.text_encoder, CLIPTextModel(text_config), "text_encoder"),
    ):
        network.load_state_dict(networks.from_bytes(bytes(data)))
        assert same(network.state_dict(), tensors(file(saved, part)))
    assert pipeline.scheduler_config["beta_end"] == 0.012
    assert pipeline.unet_config["_class_name"] == "UNet2DConditionModel"
    assert pipeline.notes == ()


def test_components_survive_the_store(saved: Path) -> None:
    parts = read_pipeline(str(saved)).components
    read = {
        name: data if isinstance(data, bytes) else networks.from_bytes(bytes(data))
        for name, data in parts.to_blobs().items()
    }
    assert Components.from_blobs(read).to_blobs() == parts.to_blobs()


@pytest.mark.parametrize("part", list(WEIGHTS))
@pytest.mark.parametrize("index", ["{}.safetensors.index.json", "{}.safetensors.index.fp32.json"])
def test_shards_are_read_as_one(part: str, index: str, folder: Path, saved: Path) -> None:
    path = file(folder, part)
    weights = tensors(path)
    path.unlink()
    names, where = sorted(weights), {}
    for i, chosen in enumerate((names[::2], names[1::2])):
        shard = f"{WEIGHTS[part]}-0000{i + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in chosen}, path.with_name(shard))
        where |= dict.fromkeys(chosen, shard)
    (path.parent / index.format(WEIGHTS[part])).write_text(json.dumps({"weight_map": where}))
    assert equal(read_pipeline(str(folder)), read_pipeline(str(saved)))
    path.with_name(shard).unlink()
    assert shard in refused(folder)


@pytest.mark.parametrize(
    "name", ["../../secret.safetensors", "/etc/secret.safetensors", "x.bin", "a\\b.safetensors"]
)
def test_an_index_names_only_safetensors_beside_it(name: str, folder: Path, tmp_path: Path) -> None:
    path = file(folder, "unet")
    shutil.copy(path, tmp_path / "secret.safetensors")
    path.rename(path.with_name("x.bin"))
    index = path.with_name(path.name + ".index.json")
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": name}}))
    assert "names the shard" in refused(folder)


def test_half_precision_is_stored_as_float32(folder: Path) -> None:
    wanted = {}
    for part in WEIGHTS:
        path = file(folder, part)
        wanted[part] = {name: value.half() for name, value in tensors(path).items()}
        path.unlink()
        save_file(wanted[part], path.with_name(f"{WEIGHTS[part]}.fp16.safetensors"))
    pipeline = read_pipeline(str(folder))
    for data, part in (
        (pipeline.unet, "unet"),
        (pipeline.components.vae, "vae"),
        (pipeline.components.text_encoder, "text_encoder"),
    ):
        have = networks.from_bytes(bytes(data))
        assert same(have, {name: value.float() for name, value in wanted[part].items()})
    assert sum("fp16" in note for note in pipeline.notes) == 3


def test_full_precision_is_read_where_both_are_there(folder: Path, saved: Path) -> None:
    path = file(folder, "unet")
    halves = {name: value.half() for name, value in tensors(path).items()}
    save_file(halves, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert equal(read_pipeline(str(folder)), read_pipeline(str(saved)))
    path.rename(path.with_name("diffusion_pytorch_model.fp32.safetensors"))
    assert read_pipeline(str(folder)).unet == read_pipeline(str(saved)).unet


def test_which_of_two_unknown_variants_is_meant(folder: Path) -> None:
    path = file(folder, "unet")
    shutil.copy(path, path.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    path.rename(path.with_name("diffusion_pytorch_model.ema.safetensors"))
    assert "ema, non_ema" in refused(folder)


def test_the_older_names_of_stable_diffusion_1(folder: Path, saved: Path, change: Change) -> None:
    """The VAE's attention, the text encoder's prefix and position numbers, and no scaling factor."""
    vae, text = tensors(file(folder, "vae")), tensors(file(folder, "text_encoder"))
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        vae = {name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for name, v in vae.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in vae
    save_file(vae, file(folder, "vae"))
    text = {f"text_model.{name}": value for name, value in text.items()}
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(text, file(folder, "text_encoder"))
    change(folder / "vae" / "config.json", scaling_factor=None)
    change(folder / "text_encoder" / "config.json", _name_or_path="/somewhere/else", torch_dtype="float16")
    change(folder / "text_encoder" / "config.json", dtype=None)
    pipeline, plain = read_pipeline(str(folder)), read_pipeline(str(saved))
    assert pipeline.components.vae == plain.components.vae
    assert pipeline.components.text_encoder == plain.components.text_encoder
    assert pipeline.components.vae_config["scaling_factor"] == 0.18215
    assert "0.18215" in " ".join(pipeline.notes)
    assert pipeline.components.text_config["torch_dtype"] == "float32"
    assert "_name_or_path" not in pipeline.components.text_config


def test_both_layouts_of_tokenizers_give_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    for name in ("tokenizer.json", "special_tokens_map.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    old = read_pipeline(str(folder)).components.tokenizer
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= old.keys()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    new = read_pipeline(str(folder)).components.tokenizer
    assert "tokenizer.json" in new
    assert "vocab.json" not in new
    said = []
    for i, files in enumerate((old, new)):
        (tmp_path / str(i)).mkdir()
        for name, text in files.items():
            (tmp_path / str(i) / name).write_text(text)
        loaded = CLIPTokenizer.from_pretrained(tmp_path / str(i))
        said.append(loaded(["a cat, a dog", ""], padding="max_length", truncation=True).input_ids)
    assert said[0] == said[1]
    assert len(said[0][0]) == 77


def test_a_tokenizer_without_limit_gets_the_encoders(folder: Path, change: Change) -> None:
    for limit in (None, 10**30):
        change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=limit)
        pipeline = read_pipeline(str(folder))
        assert json.loads(pipeline.components.tokenizer["tokenizer_config.json"])["model_max_length"] == 77
        assert "77" in " ".join(pipeline.notes)


@pytest.mark.parametrize("part", list(WEIGHTS))
def test_a_pickle_is_never_fallen_back_to(part: str, folder: Path) -> None:
    path = file(folder, part)
    torch.save(tensors(path), path.with_suffix(".bin"))
    path.unlink()
    said = refused(folder)
    assert part in said
    assert path.with_suffix(".bin").name in said
    assert "pickle can run any code" in said
    torch.save({"x": torch.zeros(1)}, path)
    assert "in spite of its name" in refused(folder)


@pytest.mark.parametrize("part", [*WEIGHTS, "tokenizer", "scheduler"])
def test_a_missing_component_is_named(part: str, folder: Path) -> None:
    shutil.rmtree(folder / part)
    assert f"no {part}/" in refused(folder)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("StableDiffusionXLPipeline", {}),
        ("StableDiffusion3Pipeline", {}),
        ("FluxPipeline", {}),
        ("StableDiffusionPipeline", {"text_encoder": ["transformers", "T5EncoderModel"]}),
        ("StableDiffusionPipeline", {"vae": ["diffusers", "AutoencoderTiny"]}),
        ("StableDiffusionPipeline", {"tokenizer": [None, None]}),
        ("StableDiffusionInpaintPipeline", {}),
        ("StableDiffusionInstructPix2PixPipeline", {}),
        ("LatentConsistencyModelPipeline", {}),
        ("DDPMPipeline", {}),
    ],
)
def test_other_pipelines_and_classes(
    name: str, parts: dict[str, list[str]], folder: Path, change: Change
) -> None:
    change(folder / "model_index.json", _class_name=name, **parts)
    said = refused(folder)
    assert (next(iter(parts.values()))[1] or "no tokenizer" if parts else name) in said
    assert "UNet2DConditionModel, AutoencoderKL, CLIPTextModel and CLIPTokenizer" in said


@pytest.mark.parametrize(
    ("place", "entries", "said"),
    [
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "UNet2DModel"),
        ("unet/config.json", {"in_channels": 9}, "a masked image and its mask"),
        ("unet/config.json", {"in_channels": 8}, "InstructPix2Pix"),
        ("unet/config.json", {"in_channels": 7}, "an upscaler"),
        ("unet/config.json", {"in_channels": 5}, "a depth map"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, "time_cond_proj_dim = 8"),
        ("unet/config.json", {"class_embed_type": "projection"}, "class_embed_type"),
        ("unet/config.json", {"num_class_embeds": 1000}, "num_class_embeds"),
        ("unet/config.json", {"class_embeddings_concat": True}, "class_embeddings_concat"),
        ("unet/config.json", {"encoder_hid_dim": 32}, "encoder_hid_dim"),
        ("unet/config.json", {"encoder_hid_dim_type": "ip_image_proj"}, "encoder_hid_dim_type"),
        ("unet/config.json", {"dual_cross_attention": True}, "dual_cross_attention"),
        ("unet/config.json", {"attention_type": "gated"}, "GLIGEN"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "continuous level of noise"),
        ("unet/config.json", {"sample_size": [8, 16]}, "no square"),
        ("unet/config.json", {"block_out_channels": [8, 10**5]}, "do not fit"),
        ("unet/config.json", {"transformer_layers_per_block": 10**6}, "2,000,000 layers"),
        ("vae/config.json", {"layers_per_block": 10**6}, "2,000,000 layers"),
        ("vae/config.json", {"latent_channels": "four"}, "latent_channels"),
        ("vae/config.json", {"scaling_factor": 10**400}, "scaling_factor"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "1,000,000 layers"),
        ("text_encoder/config.json", {"architectures": 5}, "a list of names"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "code.Net"}}, "code of its own"),
        ("text_encoder/config.json", {"attn_implementation": "owner/kernel"}, "code of its own"),
        ("text_encoder/config.json", {"quantization_config": {"load_in_8bit": True}}, "quantised"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": "code.T"}}, "code of its own"),
        ("tokenizer/vocab.json", {"a</w>": "five"}, "a whole number"),
        ("model_index.json", {"unet": ["my_unet", "UNet2DConditionModel"]}, "class of its own module"),
        ("model_index.json", {"_class_name": ["pipeline", "Mine"]}, "code of its own"),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "distilled"),
        ("unet/config.json", {"in_channels": 8, "out_channels": 8}, "latents have 4"),
        ("unet/config.json", {"cross_attention_dim": 24}, "text encoder's have 16"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "text_time"),
        ("unet/config.json", {"layers_per_block": 2}, "do not fit"),
        ("unet/config.json", {"down_block_types": ["Nothing"]}, "no network can be built"),
        ("vae/config.json", {"_class_name": "AsymmetricAutoencoderKL"}, "AsymmetricAutoencoderKL"),
        ("vae/config.json", {"block_out_channels": [8, 32]}, "do not fit"),
        ("vae/config.json", {"scaling_factor": float("nan")}, "scaling_factor"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor"),
        ("vae/config.json", {"shift_factor": 0.1}, "shift_factor"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("text_encoder/config.json", {"model_type": "t5"}, "t5"),
        ("text_encoder/config.json", {"num_hidden_layers": 3}, "is missing"),
        ("text_encoder/config.json", {"max_position_embeddings": 40}, "prompts of 77 tokens"),
        ("text_encoder/config.json", {"vocab_size": 50}, "text encoder knows 50"),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"}, "T5Tokenizer"),
        ("scheduler/scheduler_config.json", {"beta_schedule": None}, "no betas"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "unheard"}, "unheard"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "flow"),
    ],
)
def test_configurations_that_do_not_fit(
    place: str, entries: dict[str, object], said: str, folder: Path, change: Change
) -> None:
    change(folder / place, **entries)
    assert said in refused(folder)


def test_the_rest_of_clip_beside_the_text_encoder(folder: Path, saved: Path) -> None:
    """What transformers passes over, too: the projection and the vision side of a whole CLIP model."""
    path = file(folder, "text_encoder")
    beside = {"text_projection.weight": torch.eye(16), "logit_scale": torch.ones(())}
    save_file({**tensors(path), **beside, "vision_model.post_layernorm.weight": torch.ones(4)}, path)
    assert equal(read_pipeline(str(folder)), read_pipeline(str(saved)))


@pytest.mark.parametrize("content", ["{", "[1]", "\x00", '{"a":' * 10**5])
@pytest.mark.parametrize("place", ["model_index.json", "unet/config.json", "tokenizer/vocab.json"])
def test_damaged_texts(place: str, content: str, folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    shutil.copy(folder / "model_index.json", folder / "tokenizer" / "vocab.json")
    (folder / "tokenizer" / "merges.txt").write_text("")
    (folder / place).write_text(content)
    assert place.split("/")[-1] in refused(folder)


@pytest.mark.parametrize("part", list(WEIGHTS))
def test_damaged_weights(part: str, folder: Path) -> None:
    path = file(folder, part)
    whole, weights = path.read_bytes(), tensors(path)
    name = next(name for name in weights if weights[name].ndim > 1)
    for broken in (whole[:-10], b"\x08" * 100, b""):
        path.write_bytes(broken)
        assert "safetensors" in refused(folder)
    save_file({**weights, name: torch.full_like(weights[name], float("nan"))}, path)
    made = read_pipeline(str(folder))  # numbers are looked at as they are stored
    with pytest.raises(DataError, match=rf"{part} has NaN or infinite weights") as caught:
        bytes(made.unet if part == "unet" else getattr(made.components, part))
    assert f"in tensor '{name}'" in caught.value.why
    save_file({k: v for k, v in weights.items() if k != name}, path)
    assert f"'{name}' is missing" in refused(folder)
    save_file({**weights, "stranger": torch.zeros(1)}, path)
    assert "'stranger' is unexpected" in refused(folder)


def test_a_unet_is_put_over_its_base(folder: Path, saved: Path) -> None:
    other = {name: value + 1 for name, value in tensors(file(folder, "unet")).items()}
    save_file(other, file(folder, "unet"))
    data, config = read_unet_folder(folder / "unet")
    assert same(networks.from_bytes(bytes(data)), other)
    whole = register_source(str(folder / "unet"), str(saved))
    assert whole.unet == data
    assert whole.unet_config == config == read_pipeline(str(saved)).unet_config
    assert whole.components.to_blobs() == read_pipeline(str(saved)).components.to_blobs()
    assert "--base" in refused(folder / "unet", kind=UsageError)


def test_a_unet_of_another_model_than_its_base(folder: Path, saved: Path, change: Change) -> None:
    change(folder / "unet" / "config.json", cross_attention_dim=24)
    assert "text encoder's have 16" in refused(folder / "unet", str(saved))


def test_a_training_folder_without_index_says_how_it_is_taken(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    said = refused(folder)
    assert "model_index.json" in said
    assert f"{folder / 'unet'} over --base" in said


@pytest.mark.parametrize("source", ["./nowhere", "a/b/c", "nothing", "weights/model.safetensors"])
def test_nothing_there(source: str) -> None:
    assert f"no such file or folder: {source}" in refused(source)


def test_a_hub_id(saved: Path, cached: Callable[[Path, str], None]) -> None:
    cached(saved, "someone/some-model")
    assert equal(register_source("someone/some-model", None), read_pipeline(str(saved)))
    with_base = register_source(str(saved / "unet"), "someone/some-model")
    assert equal(with_base, read_pipeline(str(saved)))


def test_a_hub_that_cannot_be_reached() -> None:
    """The tests' environment is offline."""
    assert "someone/some-model" in refused("someone/some-model", kind=MissingError)
