"""Folders of unconditional models as diffusers and people leave them: taken over, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError
from guda_cli.families.family import Taken, Wanted
from guda_cli.families.pixels import Pixels
from guda_cli.sections import Recipe

STEM = "diffusion_pytorch_model"
OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
Change = Callable[..., None]


def unet(**more: Any) -> torch.nn.Module:
    from diffusers.models.unets.unet_2d import UNet2DModel

    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    model: torch.nn.Module = UNet2DModel(**{**config, **more})
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDPMPipeline with attention, whose betas are not a recipe's; not to be changed."""
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    folder = tmp_path_factory.mktemp("ddpm") / "model"
    scheduler = DDPMScheduler(num_train_timesteps=40, beta_schedule="linear")
    DDPMPipeline(unet(), scheduler).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def change() -> Change:
    """`change(path, key=value)` sets entries of a JSON file."""

    def run(path: Path, **entries: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return run


def take(source: Path, beside: Path | None = None) -> Taken:
    wanted = Wanted(
        Recipe(name="tiny"), (1, 8, 8), {"ada": 3, "bo": 3}, lambda: None,
        lambda: torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
    )  # fmt: skip
    return Pixels().take(str(source), str(beside) if beside else None, wanted)


def refused(source: Path, beside: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        take(source, beside)
    return f"{caught.value.message} | {caught.value.why} | {caught.value.fix}"


def tensors(folder: Path) -> Weights:
    return dict(load((folder / f"{STEM}.safetensors").read_bytes()))


def flat(folder: Path) -> Path:
    """All files of the pipeline in one folder, as the first DDPMs on the hub have them."""
    made = folder.with_name("flat")
    made.mkdir()
    for path in folder.rglob("*.*"):
        shutil.copy(path, made / path.name)
    return made


class TestWeights:
    @pytest.mark.parametrize("convolutions", [False, True])
    def test_the_attention_names_of_2022(self, convolutions: bool, folder: Path, saved: Path) -> None:
        named = {}
        for name, value in tensors(folder / "unet").items():
            for new, old in OLD.items():
                if new in name and convolutions and value.ndim == 2:
                    value = value[:, :, None, None].contiguous()
                name = name.replace(new, old)
            named[name] = value
        assert any(".attentions.0.query." in name for name in named)
        save_file(named, folder / "unet" / f"{STEM}.safetensors")
        assert take(folder).weights == take(saved).weights

    @pytest.mark.parametrize("variant", ["fp16", "non_ema"])
    def test_a_variant_alone_is_taken_and_said(self, variant: str, folder: Path) -> None:
        whole = tensors(folder / "unet")
        kept = {name: value.half() for name, value in whole.items()} if variant == "fp16" else whole
        (folder / "unet" / f"{STEM}.safetensors").unlink()
        save_file(kept, folder / "unet" / f"{STEM}.{variant}.safetensors")
        taken = take(folder)
        found = networks.from_bytes(bytes(taken.weights))
        assert all(torch.equal(found[name], value.float()) for name, value in kept.items())
        assert f"the network is there as {variant} only" in " ".join(taken.notes)

    def test_the_plain_file_is_read_before_its_variants(self, folder: Path, saved: Path) -> None:
        halves = {name: value.half() for name, value in tensors(folder / "unet").items()}
        for variant in ("fp16", "non_ema"):
            save_file(halves, folder / "unet" / f"{STEM}.{variant}.safetensors")
        assert take(folder).weights == take(saved).weights

    def test_shards_of_a_variant(self, folder: Path, saved: Path) -> None:
        weights, where = tensors(folder / "unet"), {}
        (folder / "unet" / f"{STEM}.safetensors").unlink()
        for i, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
            shard = f"{STEM}.fp16-0000{i + 1}-of-00002.safetensors"
            save_file({name: weights[name] for name in names}, folder / "unet" / shard)
            where |= dict.fromkeys(names, shard)
        index = folder / "unet" / f"{STEM}.safetensors.index.fp16.json"
        index.write_text(json.dumps({"weight_map": where}))
        assert take(folder).weights == take(saved).weights

    def test_checkpoints_of_accelerate(self, folder: Path, saved: Path) -> None:
        (folder / "unet" / f"{STEM}.safetensors").rename(folder / "unet" / "model.safetensors")
        assert take(folder).weights == take(saved).weights

    @pytest.mark.parametrize("places", [["x"], {}, None, {"conv_in.weight": 5}, {"conv_in.weight": "x.bin"}])
    def test_an_index_that_leads_nowhere(self, places: object, folder: Path) -> None:
        (folder / "unet" / f"{STEM}.safetensors").rename(folder / "unet" / "x.bin")
        (folder / "unet" / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        assert "shard" in refused(folder)

    def test_whole_numbers_are_no_weights(self, folder: Path) -> None:
        codes = {name: value.to(torch.int8) for name, value in tensors(folder / "unet").items()}
        save_file(codes, folder / "unet" / f"{STEM}.safetensors")
        assert "int8, not float32" in refused(folder)

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
    def test_numbers_of_8_bits(self, dtype: torch.dtype, folder: Path) -> None:
        small = {name: value.to(dtype) for name, value in tensors(folder / "unet").items()}
        save_file(small, folder / "unet" / f"{STEM}.safetensors")
        assert "the weights are quantised" in refused(folder)

    @pytest.mark.parametrize("kind", ["F4", "F8_E8M0"])
    def test_codes_of_numbers(self, kind: str, folder: Path) -> None:
        entry = {
            "conv_in.weight": {"dtype": kind, "shape": [8], "data_offsets": [0, 4 if kind == "F4" else 8]}
        }
        header = json.dumps(entry).encode()
        data = len(header).to_bytes(8, "little") + header + bytes(4 if kind == "F4" else 8)
        (folder / "unet" / f"{STEM}.safetensors").write_bytes(data)
        said = refused(folder)
        assert kind in said
        assert "quantised" in said


class TestSchedules:
    def test_files_in_one_folder_have_their_own_schedule(self, folder: Path, saved: Path) -> None:
        taken = take(flat(folder))
        assert taken.config["scheduler"]["beta_schedule"] == "linear"
        assert taken.config == take(saved).config
        np.testing.assert_array_equal(taken.schedule.betas, take(saved).schedule.betas)

    def test_beside_bare_weights_it_is_taken_and_said(self, folder: Path, saved: Path) -> None:
        bare = flat(folder)
        (bare / "model_index.json").unlink()
        taken = take(bare)
        assert taken.config == take(saved).config
        assert f"beside the weights: {bare / 'scheduler_config.json'}" in " ".join(taken.notes)

    @pytest.mark.parametrize("name", ["unet", "unet_ema"])
    def test_beside_a_pipelines_network(self, name: str, folder: Path, saved: Path) -> None:
        (folder / "unet").rename(folder / name)
        taken = take(folder / name)
        assert taken.config == take(saved).config
        assert "beside it" in " ".join(taken.notes)

    def test_a_pipeline_in_one_folder_without_one(self, folder: Path) -> None:
        bare = flat(folder)
        (bare / "scheduler_config.json").unlink()
        assert "has no scheduler" in refused(bare)

    def test_the_given_one_counts(self, folder: Path, change: Change) -> None:
        other = Path(shutil.copytree(folder / "scheduler", folder.with_name("other")))
        change(other / "scheduler_config.json", num_train_timesteps=30)
        assert take(flat(folder), other).schedule.T == 30


class TestRefused:
    @pytest.mark.parametrize(
        "name",
        [
            "LDMPipeline", "PNDMPipeline", "ScoreSdeVePipeline", "KarrasVePipeline",
            "ConsistencyModelPipeline", "DiTPipeline", "RePaintPipeline",
            "LDMSuperResolutionPipeline", "StableDiffusionPipeline",
        ],
    )  # fmt: skip
    def test_other_pipelines_by_their_name(self, name: str, folder: Path, change: Change) -> None:
        change(folder / "model_index.json", _class_name=name)
        for source in (folder, folder / "unet"):
            said = refused(source)
            assert f"is a {name}" in said
            assert "DDPMPipeline and DDIMPipeline" in said
        assert ("text_conditional" in said) == (name == "StableDiffusionPipeline")

    def test_a_network_over_latents(self, folder: Path) -> None:
        from diffusers.models.autoencoders.vq_model import VQModel
        from diffusers.pipelines import LDMPipeline
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        codes = VQModel(
            in_channels=1, out_channels=1, block_out_channels=(8,), latent_channels=1, norm_num_groups=4,
            num_vq_embeddings=16, down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
        )  # fmt: skip
        LDMPipeline(codes, unet(), DDIMScheduler()).save_pretrained(folder.with_name("ldm"))
        for source in (folder.with_name("ldm"), folder.with_name("ldm") / "unet"):
            assert "works on latents, not on pixels" in refused(source)

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            ({"_class_name": ["pipeline", "MyPipeline"]}, "code of its own"),
            ({"unet": ["my_unet", "UNet2DModel"]}, "class of its own module"),
            ({"unet": ["diffusers", "DiTTransformer2DModel"]}, "DiTTransformer2DModel"),
            ({"scheduler": ["diffusers", "EDMEulerScheduler"]}, "EDM"),
        ],
    )
    def test_an_index_of_something_else(
        self, entries: dict[str, Any], said: str, folder: Path, change: Change
    ) -> None:
        change(folder / "model_index.json", **entries)
        assert said in refused(folder)

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            ({"class_embed_type": "timestep"}, "class_embed_type"),
            ({"time_embedding_type": "fourier"}, "continuous level of noise"),
            ({"in_channels": 6}, "6 input"),
            ({"in_channels": 4, "out_channels": 4}, "reads latents"),
            ({"sample_size": [8, 16]}, "8 x 16"),
            ({"block_out_channels": None}, "no block_out_channels"),
            ({"block_out_channels": 8}, "a list of whole numbers"),
            ({"block_out_channels": [8, 2**40]}, "a list of whole numbers"),
            ({"layers_per_block": 10**6}, "2,000,000 layers"),
            ({"block_out_channels": [8] * 5000}, "5,000 layers"),
            ({"block_out_channels": [8, 10**5]}, "do not fit"),
            ({"down_block_types": ["Nothing", "DownBlock2D"]}, "no network can be built"),
            ({"act_fn": 5}, "no network can be built"),
            ({"quantization_config": {"load_in_8bit": True}}, "quantised"),
            ({"auto_map": {"AutoModel": "code.Net"}}, "code of its own"),
        ],
    )
    def test_networks(self, entries: dict[str, Any], said: str, folder: Path, change: Change) -> None:
        change(folder / "unet" / "config.json", **entries)
        assert said in refused(folder)

    @pytest.mark.parametrize(
        "file", ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]
    )
    @pytest.mark.parametrize("text", ['{"a":' * 10**5, "[" * 10**5, '{"a": ' + "9" * 5000 + "}"])
    def test_texts_that_are_no_configuration(self, file: str, text: str, folder: Path) -> None:
        (folder / file).write_text(text)
        assert "cannot be read" in refused(folder)

    def test_a_text_larger_than_any(self, folder: Path) -> None:
        with (folder / "unet" / "config.json").open("wb") as file:
            file.truncate(40 * 2**20)
        assert "larger than 32 MiB" in refused(folder)

    def test_a_link_that_leads_nowhere(self, folder: Path) -> None:
        (folder / "unet" / "config.json").unlink()
        (folder / "unet" / "config.json").symlink_to("../../blobs/gone")
        assert "leads nowhere" in refused(folder)

    @pytest.mark.parametrize("file", ["unet/config.json", f"unet/{STEM}.safetensors"])
    def test_what_git_lfs_has_not_fetched(self, file: str, folder: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
        (folder / file).write_text(pointer)
        assert "git lfs pull" in refused(folder)

    @pytest.mark.parametrize("file", ["unet/config.json", f"unet/{STEM}.safetensors", "model_index.json"])
    def test_pipes_are_not_waited_for(self, file: str, folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)
        if file == "model_index.json":
            assert "unet" in take(folder).config
        else:
            assert "no ordinary file" in refused(folder)

    def test_a_file(self, folder: Path) -> None:
        assert "is a file" in refused(folder / "unet" / f"{STEM}.safetensors")


def test_a_cache_with_two_snapshots(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    for name in ("abc", "def"):
        shutil.copytree(folder, cache / "snapshots" / name)
    said = refused(cache)
    assert "2 snapshots" in said
    assert f"--from {cache / 'snapshots' / 'def'}" in said
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    assert take(cache).config == take(folder).config
    shutil.rmtree(cache / "snapshots")
    (cache / "snapshots").mkdir()
    assert "hf download owner/name" in refused(cache)
