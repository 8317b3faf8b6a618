"""Recipes: strict keys, types, overrides, validation, round trip; and every shipped one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from guda_cli import sections
from guda_cli.errors import RecipeError
from guda_cli.sections import LatentSpec, Recipe, TextSpec, to_dict
from guda_cli.settings import lookup
from guda_cli.settings.reading import apply_sets, dump, from_dict, parse, resolve_path

SHIPPED = lookup.shipped()


def make(text: str) -> Recipe:
    return from_dict(parse(text))


class TestKeys:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("train: {epoch: 3}", "did you mean 'epochs'"),
            ("trian: {epochs: 3}", "did you mean 'train'"),
            ("unlearn: {neighbors: 3}", "did you mean 'neighbours'"),
            ("data: {zzzzzzzz: 3}", "known: source, path"),
        ],
    )
    def test_unknown_key_names_the_nearest(self, text: str, said: str) -> None:
        with pytest.raises(RecipeError, match="unknown key") as caught:
            make(text)
        assert said in caught.value.message

    def test_the_message_names_the_section(self) -> None:
        with pytest.raises(RecipeError, match="unknown key 'epoch' in train; did you mean 'epochs'"):
            make("train: {epoch: 3}")

    @pytest.mark.parametrize("text", ["[1, 2]", "just text", "3"])
    def test_a_recipe_is_a_mapping(self, text: str) -> None:
        with pytest.raises(RecipeError, match="mapping"):
            parse(text)

    def test_a_section_is_a_mapping(self) -> None:
        with pytest.raises(RecipeError, match="section train must be a mapping"):
            make("train: 3")

    def test_bad_yaml(self) -> None:
        with pytest.raises(RecipeError, match="not valid YAML"):
            parse("a: [1,")

    def test_empty_recipe_is_the_defaults(self) -> None:
        assert make("") == Recipe()


class TestTypes:
    def test_exponents_without_a_dot_are_numbers(self) -> None:
        """YAML 1.1 reads 1e-5 as text."""
        assert make("unlearn: {lr: 1e-5}").unlearn.lr == 1e-5

    def test_whole_numbers_serve_as_floats(self) -> None:
        epochs = make("train: {epochs: 3}").train.epochs
        assert epochs == 3.0
        assert isinstance(epochs, float)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("train: {batch_size: 1.5}", "train.batch_size must be a whole number"),
            ("train: {batch_size: true}", "whole number"),
            ("train: {lr: fast}", "train.lr must be a number"),
            ("train: {flip: 1}", "train.flip must be true or false"),
            ("data: {groups: [{a: 1}]}", "data.groups must be text"),
        ],
    )
    def test_wrong_types_are_refused(self, text: str, said: str) -> None:
        with pytest.raises(RecipeError) as caught:
            make(text)
        assert said in caught.value.message

    def test_one_value_serves_as_a_list(self) -> None:
        assert make("data: {group: style}").data.group == ("style",)

    def test_null_where_allowed(self) -> None:
        assert make("train: {steps: null}").train.steps is None


class TestSets:
    def test_override(self) -> None:
        values = apply_sets(parse("train: {epochs: 3, lr: 0.1}"), ["train.epochs=5", "data.groups=[a, b]"])
        recipe = from_dict(values)
        assert (recipe.train.epochs, recipe.train.lr, recipe.data.groups) == (5.0, 0.1, ("a", "b"))

    def test_the_last_one_wins(self) -> None:
        assert from_dict(apply_sets({}, ["train.seed=1", "train.seed=2"])).train.seed == 2

    def test_the_given_mapping_is_left_alone(self) -> None:
        values = {"train": {"seed": 1}}
        apply_sets(values, ["train.seed=2"])
        assert values == {"train": {"seed": 1}}

    def test_values_may_contain_equal_signs(self) -> None:
        assert from_dict(apply_sets({}, ["data.path=/a=b"])).data.path == "/a=b"

    @pytest.mark.parametrize("item", ["train.epochs", "=3", "train.lr=[1", "name.x=3"])
    def test_malformed(self, item: str) -> None:
        with pytest.raises(RecipeError):
            apply_sets({"name": "x"}, [item])

    def test_unknown_key(self) -> None:
        with pytest.raises(RecipeError, match="did you mean 'epochs'"):
            from_dict(apply_sets({}, ["train.epoch=3"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epochs: 0}", "train.epochs must be above 0"),
        ("train: {lr: .nan}", "train.lr"),
        ("train: {lr: .inf}", "train.lr"),
        ("train: {ema_decay: 1}", "ema_decay"),
        ("train: {steps: 0}", "train.steps"),
        ("unlearn: {t_min: 1}", "t_min"),
        ("unlearn: {retain: keep}", "one of"),
        ("score: {draws: 0}", "score.draws"),
        ("sample: {sampler: dim}", "did you mean 'ddim'"),
        ("diffusion: {beta_schedule: cosine}", "beta_schedule"),
        ("diffusion: {rescale_betas_zero_snr: true}", "v_prediction"),
        ("data: {channels: 2}", "1 or 3"),
        ("data: {size: 9}", "halved"),
        ("data: {source: zip}", "data.source"),
        ("model: {norm_num_groups: 5}", "norm_num_groups"),
        ("model: {block_out_channels: [8, 16, 32]}", "equally long"),
    ],
)
def test_nonsense_is_refused(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(text)
    assert said in caught.value.message + caught.value.why


class TestShipped:
    def test_all_are_there(self) -> None:
        plain = [
            "digits",
            "digits-class",
            "fashion-mnist",
            "cifar10-small",
            "cifar10-gpu",
            "cifar10",
            "folder",
        ]
        text = [
            "emoji-styles",
            "paintings",
            "unlearncanvas-sd15",
            "sdxl-lora",
            "flux-lora",
            "qwen-image-lora",
        ]
        assert {*plain, *text} == set(SHIPPED)
        assert SHIPPED[0] == "digits"

    @pytest.mark.parametrize("name", SHIPPED)
    def test_loads_under_its_own_name(self, name: str, tmp_path: Path) -> None:
        recipe, text = lookup.load(name, cwd=tmp_path)
        assert recipe.name == name
        assert recipe.description
        assert text == lookup.shipped_text(name)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_round_trip(self, name: str, tmp_path: Path) -> None:
        recipe, _ = lookup.load(name, cwd=tmp_path)
        assert from_dict(to_dict(recipe)) == recipe
        assert from_dict(parse(dump(recipe))) == recipe

    @pytest.mark.parametrize("name", SHIPPED)
    def test_lines_fit_a_terminal(self, name: str) -> None:
        assert max(map(len, lookup.shipped_text(name).splitlines())) <= 120

    def test_templates_name_every_entry(self) -> None:
        """Those of text-to-image models are in their own template, less what `--from` brings or sets."""
        plain, text = (parse(lookup.shipped_text(name)) for name in ("folder", "paintings"))
        brought = {f.name for f in dataclasses.fields(LatentSpec)} | {
            f.name for f in dataclasses.fields(TextSpec)
        }
        for section in dataclasses.fields(Recipe):
            assert section.name in plain | text
            if not isinstance(getattr(Recipe(), section.name), str):
                known = {f.name for f in dataclasses.fields(getattr(Recipe(), section.name))}
                named = {**(plain.get(section.name) or {}), **(text.get(section.name) or {})}
                missing = known - set(named) - {"base", "registered", "family", "options"}
                assert not missing - (brought if section.name in ("latent", "text") else set())

    def test_template_marks_what_is_not_the_default(self) -> None:
        """Its first lines promise that every other entry is the default."""
        recipe, default = from_dict(parse(lookup.shipped_text("folder"))), Recipe()
        marked, section = set(), ""
        for line in lookup.shipped_text("folder").splitlines():
            if line and line[0].isalpha():
                section = line.partition(":")[0]
            if "not the default" in line.lower():
                marked.add(f"{section}.{line.split(':')[0].strip()}")
        looked_at = ("diffusion", "train", "unlearn", "score", "sample", "attribution")
        changed = lookup.differences(
            {name: to_dict(getattr(default, name)) for name in looked_at},
            {name: to_dict(getattr(recipe, name)) for name in looked_at},
        )
        assert set(changed) <= marked


class TestLookup:
    def test_unknown_name_names_the_nearest(self) -> None:
        with pytest.raises(RecipeError, match="did you mean 'digits'"):
            lookup.load("digit")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="cannot read recipe"):
            lookup.load("mine.yaml", cwd=tmp_path)

    def test_a_folder_or_a_binary_file_is_no_recipe(self, tmp_path: Path) -> None:
        (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
        for name in ("./", "x.yaml"):
            with pytest.raises(RecipeError):
                lookup.load(name, cwd=tmp_path)

    def test_a_file_without_a_name_is_named_after_itself(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("train: {epochs: 3}\n")
        recipe, text = lookup.load("mine.yaml", cwd=tmp_path)
        assert recipe.name == "mine"
        assert text == "train: {epochs: 3}\n"

    def test_paths_in_a_file_count_from_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "mine.yaml").write_text("data: {path: images}\n")
        recipe, _ = lookup.load("sub/mine.yaml", cwd=tmp_path)
        assert recipe.data.path == str(tmp_path / "sub" / "images")

    def test_paths_on_the_command_line_count_from_the_folder_one_is_in(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "mine.yaml").write_text("data: {path: images}\n")
        for name in ("sub/mine.yaml", "cifar10"):
            recipe, _ = lookup.load(name, ["data.path=other"], cwd=tmp_path)
            assert recipe.data.path == str(tmp_path / "other")

    def test_other_overrides_leave_the_path_of_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "mine.yaml").write_text("data: {path: images}\n")
        recipe, _ = lookup.load("sub/mine.yaml", ["data.size=16"], cwd=tmp_path)
        assert recipe.data.path == str(tmp_path / "sub" / "images")

    def test_home_and_absolute_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert resolve_path({"data": {"path": "~/x"}}, Path("/base"))["data"]["path"] == str(tmp_path / "x")
        assert resolve_path({"data": {"path": "/x"}}, Path("/base"))["data"]["path"] == "/x"

    def test_no_path_stays_none(self, tmp_path: Path) -> None:
        assert lookup.load("cifar10", cwd=tmp_path)[0].data.path is None


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sections.Recipe().name = "x"  # type: ignore[misc]


def test_another_operator_drops_what_was_set_for_the_one_before() -> None:
    base = {"unlearn": {"operator": "retrack", "forget_weight": 1.0, "t_min": 0.4, "lr": 1e-3}}
    other = from_dict(apply_sets(base, ["unlearn.operator=neggrad"])).unlearn
    assert (other.forget_weight, other.t_min, other.lr) == (None, None, 1e-3)
    given = from_dict(apply_sets(base, ["unlearn.t_min=0.2", "unlearn.operator=neggrad"])).unlearn
    assert (given.forget_weight, given.t_min) == (None, 0.2)
    same = from_dict(apply_sets(base, ["unlearn.operator=retrack"])).unlearn
    assert (same.forget_weight, same.t_min) == (1.0, 0.4)
