"""Class-conditional models as a user meets them: train, unlearn, sample by class, score with it."""

# ruff: noqa: F401, F811
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.devices import packing
from tests.workflow.fixtures import GROUPS, RECIPE, Cli, cli, draw, here, once, one_thread, record, run, terms

CONDITIONAL = RECIPE.replace("norm_num_groups: 4", "norm_num_groups: 4, class_conditional: true")
SHORT = ["--set", "train.steps=3", "--set", "unlearn.steps=2"]


def build(home: Path) -> None:
    """Trained, one group unlearned and one left out, sampled."""
    draw(home / "images")
    (home / "tiny.yaml").write_text(CONDITIONAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for command in (
            ["train", "tiny.yaml", *SHORT],
            ["unlearn", "--group", "blue", "--no-null"],
            ["train", "--without", "blue"],
            ["sample", "-n", "6", "--out", "q"],
        ):
            assert run(*command) == 0, command


@pytest.fixture
def work(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> Path:
    home = once(tmp_path_factory, "class-conditional", build)
    for name in (".guda", "q"):
        shutil.copytree(home / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(path: Path | str) -> str | None:
    with Image.open(path) as image:
        return image.info.get("guda:class")


def plain(source: str, out: str) -> str:
    """A copy without PNG text."""
    with Image.open(source) as image:
        Image.fromarray(np.asarray(image)).save(out, "PNG")
    return out


def digest(cli: Cli, *args: str) -> str:
    return str(cli("score", *args, "--json").documents[0]["digest"])


class TestModels:
    def test_the_networks_have_a_class_a_group_and_the_null_class(self, work: Path) -> None:
        from guda_cli.diffusion import networks

        for found in (record("train"), record("train", "blue")):
            config = json.loads(here().read_bytes(found.outputs["config"]))
            assert config["classes"] == list(GROUPS)
            assert config["unet"]["num_class_embeds"] == 5
            weights = networks.from_bytes(here().read_bytes(found.outputs["weights"]))
            assert weights["class_embedding.weight"].shape[0] == 5
            assert found.params["train"]["class_dropout"] == 0.1

    def test_it_is_trained_on_classes(self, cli: Cli, work: Path) -> None:
        """Another share of dropped classes is another model of the same images, steps and noise."""
        before = record("train").outputs["weights"]
        made_now = cli("train", "--set", "train.class_dropout=0.9", "--json").document
        assert made_now["ran"] == 1
        assert made_now["models"][0]["weights"] != before

    def test_images_in_several_groups(
        self, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        draw(tmp_path / "images", ("a", "b"), images=2)
        rows = [{"file_name": f"{g}/0{i}.png", "tag": ["x", g]} for g in "ab" for i in range(2)]
        (tmp_path / "images" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "tiny.yaml").write_text(CONDITIONAL)
        done = cli("train", "tiny.yaml", *SHORT, "--set", "data.group=tag", code=3)
        assert "exactly one group" in done.stderr
        assert not list(here().records("train"))


class TestSample:
    def test_classes_in_turn_in_name_and_text(self, work: Path) -> None:
        names = [f"{i:05d}-{GROUPS[i % 4]}.png" for i in range(6)]
        assert sorted(path.name for path in Path("q").glob("*.png")) == names
        assert [text(f"q/{name}") for name in names] == [GROUPS[i % 4] for i in range(6)]
        note = json.loads(Path("q/samples.json").read_text())
        assert note["classes"] == [GROUPS[i % 4] for i in range(6)]
        assert note["guidance"] == 1.0

    def test_chosen_classes(self, cli: Cli, work: Path, documents) -> None:
        done = cli("sample", "-n", "3", "--out", "s", "--class", "dune", "--class", "blue", "--json")
        [document] = documents(done.stdout)
        assert document["images"] == ["00000-dune.png", "00001-blue.png", "00002-dune.png"]
        assert document["classes"] == ["dune", "blue", "dune"]
        assert Path("s/00001-blue.png").read_bytes() == Path("q/00001-blue.png").read_bytes()
        assert not np.array_equal(
            *(np.asarray(Image.open(f)) for f in ("s/00000-dune.png", "q/00000-amber.png"))
        )

    def test_guidance(self, cli: Cli, work: Path) -> None:
        cli("sample", "-n", "2", "--out", "one", "--guidance", "1")
        assert Path("one/00001-blue.png").read_bytes() == Path("q/00001-blue.png").read_bytes()
        cli("sample", "-n", "2", "--out", "strong", "--guidance", "6")
        assert Path("strong/00001-blue.png").read_bytes() != Path("q/00001-blue.png").read_bytes()
        assert record("sample").provenance["forwards"] == 2 * 2 * 5

    def test_from_models_without_a_group(self, cli: Cli, work: Path) -> None:
        cli("sample", "-n", "2", "--out", "s", "--without", "blue")
        assert sorted(p.name for p in Path("s").glob("*.png")) == [
            "without-blue-00000-amber.png", "without-blue-00001-blue.png",
        ]  # fmt: skip
        done = cli("sample", "-n", "2", "--out", "t", "--without", "blue", "--method", "logo")
        assert "without any image of class blue" in done.stderr
        done = cli(
            "sample", "-n", "1", "--out", "u", "--without", "blue", "--method", "logo", "--class", "dune"
        )
        assert "without any image" not in done.stderr
        assert text("u/without-blue-00000-dune.png") == "dune"

    def test_an_unknown_class(self, cli: Cli, work: Path) -> None:
        assert "did you mean 'dune'" in cli("sample", "--out", "s", "--class", "dun", code=2).stderr
        assert not Path("s").exists()

    def test_a_class_name_that_is_no_file_name(self, cli: Cli, work: Path) -> None:
        from guda_cli.commands.sample import _names
        from guda_cli.workflow.models.drawing import Settings

        odd = Settings(1, "ddim", 1, 0, classes=("c/" + "d" * 300,))
        assert _names("a/b", odd) == [f"without-a_b-00000-c_{'d' * 58}.png"]


class TestScore:
    def test_the_class_of_the_file_counts(self, cli: Cli, work: Path, documents) -> None:
        own = documents(cli("score", "q", "--json").stdout)
        assert [d.get("class") for d in own] == [GROUPS[i % 4] for i in range(6)]
        path = "q/00000-amber.png"
        bare = plain(path, "bare.png")
        assert digest(cli, path) == digest(cli, bare, "--class", "amber")
        others = {digest(cli, bare), digest(cli, path, "--class", "dune"), digest(cli, path)}
        assert len(others) == 3
        assert "no model was run" in cli("score", path).stderr

    def test_each_condition_has_terms_of_its_own_on_the_same_noise(self, cli: Cli, work: Path) -> None:
        """Keyed apart, and equal to the terms computed directly with that class and the pixels' noise."""
        import torch

        from guda_cli.data.queries import load_query
        from guda_cli.diffusion import elbo, grid, networks
        from guda_cli.diffusion.schedule import from_config
        from guda_cli.families.pixels import Pixels, UNetDenoiser

        path = plain("q/00000-amber.png", "bare.png")
        keys = {digest(cli, path): 4, digest(cli, path, "--class", "cyan"): 2}
        full = next(r for r in here().records("train") if not r.params["without"])
        config = json.loads(here().read_bytes(full.outputs["config"]))
        unet = Pixels().build(config["unet"], 0)
        unet.load_state_dict(networks.from_bytes(here().read_bytes(full.outputs["weights"])))
        denoiser = UNetDenoiser(unet.eval(), from_config(config["scheduler"]))
        query = load_query(path, 8, 1)
        x0 = torch.from_numpy(query.pixels)[None].float() / 127.5 - 1
        tables = {
            t["table"] for t in here().tables() if t["spec"]["inputs"]["weights"] == full.outputs["weights"]
        }
        [layout] = {json.dumps(t["spec"]["params"]["grid"]) for t in here().tables() if t["table"] in tables}
        stored = {row: value for (table, row), value in terms(here()).items() if table in tables}
        for key, label in keys.items():
            direct = elbo.image_terms(
                denoiser, x0, [query.pixels_digest], grid.build(json.loads(layout), 50),
                seed=0, batch_size=16, cond=torch.tensor([label]),
            )  # fmt: skip
            np.testing.assert_allclose(stored[key], direct[0], rtol=packing())

    def test_metadata_beside_the_image(self, cli: Cli, work: Path) -> None:
        Path("m").mkdir()
        plain("q/00001-blue.png", "m/x.png")
        bare = digest(cli, "m/x.png")
        Path("m/metadata.csv").write_text("file_name,class\nx.png,blue\n")
        assert digest(cli, "m/x.png") == digest(cli, "q/00001-blue.png") != bare

    def test_leave_one_group_out_models_too(self, cli: Cli, work: Path) -> None:
        [found] = cli("score", "q/00001-blue.png", "--method", "logo", "--group", "blue", "--json").documents
        assert found["scores"][0]["score"] != 0
        assert found.get("class") == "blue"

    def test_maps_and_report_show_the_class(self, cli: Cli, work: Path, documents) -> None:
        done = cli("score", "q/00001-blue.png", "--map", "map.png")
        assert "class blue" in done.stdout
        cli("score", plain("q/00001-blue.png", "bare.png"))
        [report] = documents(cli("report", "--html", "r.html", "--json").stdout)
        assert sorted(str(query.get("class")) for query in report["queries"]) == ["None", "blue"]
        assert "class blue" in Path("r.html").read_text()

    def test_unknown_classes(self, cli: Cli, work: Path) -> None:
        assert "did you mean 'dune'" in cli("score", "q", "--class", "dun", code=2).stderr
        Path("m").mkdir()
        plain("q/00001-blue.png", "m/x.png")
        plain("q/00001-blue.png", "m/y.png")
        Path("m/metadata.csv").write_text("file_name,class\nx.png,bleu\n")
        done = cli("score", "m", "--json", code=3)
        assert "did you mean 'blue'" in done.stderr
        assert [d["image"] for d in done.documents if "image" in d] == ["m/y.png"]


class TestUnconditional:
    def test_options_are_refused(self, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        draw(tmp_path / "images", images=3)
        (tmp_path / "tiny.yaml").write_text(RECIPE)
        cli("train", "tiny.yaml", *SHORT)
        cli("unlearn", "--group", "blue", "--no-null")
        cli("sample", "-n", "1", "--out", "q")
        assert text("q/00000.png") is None
        for command in (
            ["sample", "--out", "s", "--class", "blue"],
            ["sample", "--out", "s", "--guidance", "2"],
            ["score", "q", "--class", "blue"],
        ):
            assert "needs a class-conditional model" in cli(*command, code=2).stderr
        Path("q/metadata.csv").write_text("file_name,class\n00000.png,blue\n")
        [found] = cli("score", "q", "--json").documents
        assert found.get("class") is None, "classes mean nothing to an unconditional model"


class TestTakenOver:
    @pytest.fixture
    def build(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
        draw(tmp_path / "images", images=3)
        (tmp_path / "tiny.yaml").write_text(RECIPE)
        monkeypatch.chdir(tmp_path)

        def make(classes: int, **changes: object) -> Path:
            import torch
            from diffusers.models.unets.unet_2d import UNet2DModel
            from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
            from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

            torch.manual_seed(0)
            unet = UNet2DModel(
                sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, num_class_embeds=classes,
                block_out_channels=(8, 16), norm_num_groups=4, add_attention=False,
                down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
                **changes,
            )  # fmt: skip
            folder = tmp_path / f"model-{classes}"
            DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=40)).save_pretrained(folder)
            return folder

        return make

    def test_with_a_null_class(self, cli: Cli, build: Callable[[int], Path]) -> None:
        done = cli("train", "tiny.yaml", *SHORT, "--from", build(5))
        assert "in this order: amber, blue, cyan, dune" in done.stderr
        cli("unlearn", "--group", "blue", "--no-null")
        cli("sample", "-n", "2", "--out", "q", "--class", "blue", "--guidance", "2")
        found = cli("score", "q", "images/amber/00.png", "--json").documents
        assert [d.get("class") for d in found] == ["blue", "blue", None]
        cli("train", "--without", "blue", "--set", "train.steps=1")
        assert record("train").params["train"]["class_dropout"] == 0.1
        config = json.loads(here().read_bytes(record("train").outputs["config"]))
        assert config["unet"]["num_class_embeds"] == 5

    def test_without_a_null_class_every_query_needs_a_class(
        self, cli: Cli, build: Callable[[int], Path]
    ) -> None:
        cli("train", "tiny.yaml", *SHORT, "--from", build(4))
        cli("unlearn", "--group", "blue", "--no-null")
        cli("sample", "-n", "2", "--out", "q", "--class", "blue")
        done = cli("score", "q/00000-blue.png", "images/amber/00.png", "--json", code=3)
        assert "no null class" in done.stderr
        assert [d.get("class") for d in done.documents if "image" in d] == ["blue"]
        cli("score", "images/amber/00.png", "--class", "amber")
        assert "null class" in cli("sample", "--out", "g", "--guidance", "2", code=2).stderr
        cli("train", "--without", "blue", "--set", "train.steps=1")
        done = cli("train", "--without", "blue", "--set", "train.class_dropout=0.1", code=3)
        assert "train.class_dropout=0" in done.stderr

    def test_an_export_can_be_registered(self, cli: Cli, build: Callable[[int], Path]) -> None:
        for classes in (4, 5):
            cli("train", "tiny.yaml", *SHORT, "--from", build(classes))
            first = record("register")
            cli("store", "export", first.key, f"out-{classes}")
            again = cli("train", "tiny.yaml", *SHORT, "--from", f"out-{classes}", "--json").document
            assert again["models"][0]["key"] == first.key

    @pytest.mark.parametrize("classes", [3, 6])
    def test_another_number_of_classes(self, cli: Cli, build: Callable[[int], Path], classes: int) -> None:
        done = cli("train", "tiny.yaml", *SHORT, "--from", build(classes), code=3)
        assert f"{classes} classes" in done.stderr
        assert "4 groups" in done.stderr

    def test_class_embeddings_of_another_kind(self, cli: Cli, build: Callable[..., Path]) -> None:
        folder = build(5, class_embed_type="timestep")
        assert "class_embed_type" in cli("train", "tiny.yaml", *SHORT, "--from", folder, code=3).stderr

    def test_data_of_other_groups_later(self, cli: Cli, build: Callable[[int], Path]) -> None:
        cli("train", "tiny.yaml", *SHORT, "--from", build(5))
        only = ["--set", "data.groups=[amber, blue, cyan]"]
        done = cli("unlearn", "--group", "blue", "--no-null", *only, code=3)
        assert "not the groups of the data" in done.stderr
