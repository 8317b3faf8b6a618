"""A text-to-image recipe as a user meets it: train, unlearn, sample, score, report, export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import guda
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.scoring.terms import Engine
from guda_cli.workflow.scoring.training_queries import training_queries
from tests.data.pngs import png
from tests.data.test_comfyui import SAMPLER, graph
from tests.text_to_image.fixtures import GROUPS, THINGS, cli, one_thread, prompt_of, studio
from tests.workflow.fixtures import Cli, flip, here, record, scores, terms

__all__ = ["cli", "one_thread", "studio"]
RIVALS = ("similarity", "nda", "trak", "d-trak", "das", "ekfac", "unlearn-query", "mucs")


def plain(source: Path, out: Path) -> Path:
    """A copy without PNG text."""
    with Image.open(source) as image:
        Image.fromarray(np.asarray(image)).save(out, "PNG")
    return out


class TestModels:
    def test_parts_are_trained_once_and_belong_to_every_model(self, studio: Path) -> None:
        assert [len(list(here().records(name))) for name in ("vae", "text-encoder", "latents")] == [1, 1, 1]
        parts = {}
        for found in (record("train", "ink"), record("train")):
            config = json.loads(here().read_bytes(found.outputs["config"]))
            assert config["unet"]["_class_name"] == "UNet2DConditionModel"
            parts[found.key] = config["parts"]
        one, two = parts.values()
        assert one == two
        assert one["vae"] == record("vae").outputs["vae"]

    def test_latents_are_the_posterior_means_times_the_scale(self, studio: Path) -> None:
        import torch
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from safetensors.torch import load

        from guda_cli.data.dataset import from_bytes

        made = record("vae")
        config = json.loads(here().read_bytes(made.outputs["vae_config"]))
        vae = AutoencoderKL.from_config(config).eval()
        vae.load_state_dict(load(here().read_bytes(made.outputs["vae"])))
        images = from_bytes(here().read_bytes(record("dataset").outputs["data"])).images
        with torch.no_grad():
            z = vae.encode(torch.from_numpy(images).float() / 127.5 - 1).latent_dist.mean
        kept = load(here().read_bytes(record("latents").outputs["latents"]))["latents"]
        torch.testing.assert_close(kept, z * config["scaling_factor"], rtol=1e-4, atol=1e-5)

    def test_an_unlearned_style_is_small(self, studio: Path) -> None:
        sizes = {kind: here().blob_size(record(kind).outputs["weights"]) for kind in ("unlearn", "train")}
        assert sizes["unlearn"] < 0.35 * sizes["train"]  # of a network this small

    def test_again_is_reused_and_a_fresh_store_gives_the_same_digests(self, studio: Path, cli: Cli) -> None:
        assert cli("unlearn", "--all", "--json").documents[0]["ran"] == 0
        cli("train", "studio.yaml", "--store", "other")
        cli("unlearn", "--group", "oil", "--no-null", "--store", "other")
        for name in ("vae", "text-encoder", "train", "unlearn"):
            mine = list(here("other").records(name))[-1]
            without = (mine.params.get("without") or {}).get("groups")
            theirs = record(name, without[0]) if without else here().lookup(mine.key)
            assert theirs is not None
            assert mine.outputs == theirs.outputs

    def test_unlearn_and_score_exactly_so_typed(self, studio: Path, cli: Cli) -> None:
        cli("unlearn", "--group", "oil")
        [found] = cli("score", "q/00000.png", "--top", "5", "--json").documents
        assert [entry["group"] for entry in found["scores"]] == sorted(
            GROUPS, key=lambda g: -scores([found])[found["digest"]][g]
        )

    def test_gc_keeps_what_the_recipe_needs(self, studio: Path, cli: Cli) -> None:
        kept = {r.key for name in ("vae", "text-encoder", "latents", "train") for r in here().records(name)}
        cli("store", "gc", "--force", "--grace", "0")
        assert {r.key for r in here().records()} >= kept

    def test_gc_drops_the_parts_of_another_recipe(self, studio: Path, cli: Cli) -> None:
        cli("train", "studio.yaml", "--set", "latent.steps=2")
        cli("train", "studio.yaml")
        assert len(list(here().records("vae"))) == 2
        cli("store", "gc", "--force", "--grace", "0")
        operations = ("vae", "text-encoder", "latents", "embeddings")
        assert [len(list(here().records(name))) for name in operations] == [1, 1, 1, 1]

    @pytest.mark.parametrize("part", ["vae", "text_encoder"])
    def test_a_damaged_part_is_made_again(self, studio: Path, cli: Cli, part: str) -> None:
        digest = record(part.replace("_", "-")).outputs[part]
        flip(here(), digest)
        done = cli("score", "q/00000.png", "--prompt", "a cat")
        assert "rebuilding" in done.stderr
        assert here().read_bytes(digest)


class TestPrompts:
    def test_samples_carry_their_prompt_and_are_scored_with_it(self, studio: Path, cli: Cli) -> None:
        with Image.open("q/00000.png") as image:
            text = image.info["guda:prompt"]
        assert text in {prompt_of(style, thing) for style in GROUPS for thing in THINGS}
        [own] = cli("score", "q/00000.png", "--json").documents
        path = plain(Path("q/00000.png"), studio / "p.png")
        [given] = cli("score", path, "--prompt", text, "--json").documents
        assert own["prompts"] == given["prompts"] == [text]
        assert scores([own]) == scores([given])

    def test_without_a_prompt_the_empty_one_is_said(self, studio: Path, cli: Cli) -> None:
        done = cli("score", plain(Path("q/00001.png"), studio / "p.png"))
        assert "empty prompt" in done.stderr
        assert "the empty prompt" in done.stdout

    def test_what_is_left_out_of_a_written_prompt_is_said(self, studio: Path, cli: Cli) -> None:
        entry = "an ink cat <lora:sumi:0.8>\nSteps: 20, Sampler: Euler a, Seed: 1"
        done = cli("score", png(studio / "tagged.png", parameters=entry), "--json")
        assert done.documents[0]["prompts"] == ["an ink cat"]
        assert "tagged.png: left out of its prompt: <lora:sumi:0.8>" in done.stderr

    def test_why_a_file_names_no_prompt_is_said(self, studio: Path, cli: Cli) -> None:
        nodes = {"n6": {"kind": "CLIPTextEncode", "text": "a"}, "n8": {"kind": "CLIPTextEncode", "text": "b"}}
        entry = graph(n3=SAMPLER, n4={**SAMPLER, "positive": ["8", 0]}, **nodes)
        done = cli("score", png(studio / "two.png", prompt=entry))
        assert "empty prompt" in done.stderr
        assert "which of them counts cannot be told" in " ".join(done.stderr.split())

    def test_several_prompts_are_averaged(self, studio: Path, cli: Cli) -> None:
        path = plain(Path("q/00002.png"), studio / "p.png")
        texts = [prompt_of("ink", "cat"), prompt_of("oil", "dog")]
        each = [cli("score", path, "--prompt", text, "--json").documents[0] for text in texts]
        both = cli("score", path, "--prompt", texts[0], "--prompt", texts[1], "--json").documents[0]
        mean = {
            group: np.mean([next(s["score"] for s in d["scores"] if s["group"] == group) for d in each])
            for group in GROUPS
        }
        found = {entry["group"]: entry["score"] for entry in both["scores"]}
        assert found == pytest.approx(mean, rel=1e-4, abs=1e-6)

    def test_features_are_seen_with_the_prompt_and_averaged_over_several(self, studio: Path) -> None:
        """What tells images unlike the training data: of two blocks of 8 and 16 channels, twice."""
        project = guda.open()._open()
        jobs = LazyJobs(project, lambda: setup("cpu"))
        full = project.require_full()
        engine = Engine(jobs.models(full), 0, jobs.compute)
        [query] = training_queries(project, [0])
        texts = (prompt_of("ink", "cat"), prompt_of("oil", "dog"))
        asked = [replace(query, prompts=(text,)) for text in texts] + [replace(query, prompts=texts)]
        one, other, both = engine.features(full, asked, 2)
        assert both.shape == (2 * (8 + 16),)
        assert np.abs(one - other).max() > 1e-6
        np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-4, atol=1e-6)

    def test_a_table_of_prompts(self, studio: Path, cli: Cli) -> None:
        plain(Path("q/00002.png"), studio / "p.png")
        (studio / "prompts.csv").write_text(f'image,prompt\np.png,"{prompt_of("oil", "tree")}"\n')
        [found] = cli("score", "p.png", "--prompts", "prompts.csv", "--json").documents
        assert found["prompts"] == [prompt_of("oil", "tree")]

    def test_a_prompt_longer_than_the_encoder_reads_is_cut_and_said(self, studio: Path, cli: Cli) -> None:
        done = cli("score", "q/00000.png", "--prompt", "a cat " * 60 + "zebra")
        assert "was cut" in done.stderr
        assert "zebra" in done.stderr
        texts = [part for i in range(6) for part in ("--prompt", f"{'a cat ' * 60}{i}")]
        done = cli("score", "q/00000.png", *texts)
        assert done.stderr.count("was cut") == 3
        assert "more than 3 prompts" in done.stderr

    def test_prompts_need_a_model_that_reads_them(self, studio: Path, cli: Cli) -> None:
        cli("train", "digits", "--set", "train.steps=1", "--store", "other")
        done = cli("score", "q/00000.png", "--prompt", "a cat", "--store", "other", code=2)
        assert "text-to-image" in done.stderr


class TestSampling:
    def test_the_same_noise_from_a_counterfactual_model(self, studio: Path, cli: Cli) -> None:
        text = prompt_of("ink", "cat")
        for out, extra in (("a", []), ("b", []), ("c", ["--without", "ink"])):
            cli("sample", "-n", "2", "--prompt", text, "--out", out, *extra)
        images = {
            name: [np.asarray(Image.open(p)) for p in sorted(Path(name).glob("*.png"))] for name in "abc"
        }
        assert all(np.array_equal(x, y) for x, y in zip(images["a"], images["b"], strict=True))
        assert images["a"][0].shape == (16, 16, 3)
        assert not all(np.array_equal(x, y) for x, y in zip(images["a"], images["c"], strict=True))
        note = json.loads(Path("a/samples.json").read_text())
        assert note["prompts"] == [text, text]

    def test_guidance_of_zero_is_not_the_recipes(self, studio: Path, cli: Cli) -> None:
        cli("sample", "-n", "1", "--guidance", "0", "--out", "none")
        assert json.loads(Path("none/samples.json").read_text())["guidance"] == 0.0


class TestBench:
    def test_every_method_runs_and_meets_the_oracle(self, studio: Path, cli: Cli) -> None:
        methods = ",".join(("guda", "logo", *RIVALS, "random"))
        assert len(cli("score", "q", "--method", methods, "--json").documents) == 6 * 11
        report = cli("report", "--against", "logo", "--json").documents[0]
        [table] = report["tables"]
        kinds = {row["kind"] for row in table["rows"]}
        assert kinds >= {"method", "random", "ceiling"}
        assert len([row for row in table["rows"] if row["kind"] == "method"]) == len(RIVALS) + 1

    def test_unlearn_query_moves_cross_attention_only(self, studio: Path, cli: Cli) -> None:
        from safetensors.numpy import load

        cli("score", "q/00000.png", "--method", "unlearn-query")
        blobs = [blob for r in here().records("attribution") for blob in r.outputs.values()]
        names = {name for blob in blobs for name in _arrays(load, here().read_bytes(blob))}
        moved = {name.removeprefix("fisher/") for name in names if name.startswith("fisher/")}
        assert moved
        assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in moved)

    @pytest.mark.parametrize(
        "operator", ["anchor:uniform", "anchor:style-removed", "anchor:matched", "esd", "finetune", "retrack"]
    )
    def test_operators(self, studio: Path, cli: Cli, operator: str) -> None:
        done = cli("unlearn", "--group", "ink", "--no-null", "--operator", operator, "--json")
        assert done.documents[0]["ran"] == 1

    def test_maps_have_the_images_size(self, studio: Path, cli: Cli) -> None:
        cli("score", "q/00000.png", "--map", "map.png", "--top", "1")
        with Image.open("map.png") as image:
            assert min(image.size) >= 16

    def test_half_precision_forwards_differ_little(self, studio: Path, cli: Cli) -> None:
        cli("score", "q/00000.png")
        cli("score", "q/00000.png", "--set", "score.dtype=bfloat16")
        specs = {t["table"]: t["spec"] for t in here().tables()}
        found: dict[str, dict[str, np.ndarray]] = {}
        for (table, _), array in terms(here()).items():
            spec = specs[table]
            found.setdefault(str(spec["inputs"]), {})[spec["params"]["compute"]["dtype"]] = array
        assert len(found) >= 4
        for by_type in found.values():
            whole, half = by_type["float32"], by_type["bfloat16"]
            assert not np.array_equal(whole, half)
            np.testing.assert_allclose(half, whole, rtol=0.05)


def _arrays(load: object, data: bytes) -> list[str]:
    try:
        return list(load(data))  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - other outputs are no safetensors
        return []


def test_export_opens_as_an_ordinary_pipeline(studio: Path, cli: Cli) -> None:
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    from guda_cli.unlearning import lora

    found = record("unlearn", "oil")
    cli("store", "export", found.key[:12], "out")
    pipe = StableDiffusionPipeline.from_pretrained("out", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        prompt_of("ink", "cat"), num_inference_steps=2, height=16, width=16, output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images[0]  # fmt: skip
    assert image.shape == (16, 16, 3)
    assert np.isfinite(image).all()
    assert any(lora.A in name for name in _arrays(_load(), here().read_bytes(found.outputs["weights"])))


def _load() -> object:
    from safetensors.numpy import load

    return load
