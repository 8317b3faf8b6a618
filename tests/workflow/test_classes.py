"""Class-conditional recipes: what enters keys, what is stored, recipes that do not fit model or data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guda_cli import sections
from guda_cli.data.classes import Classes
from guda_cli.data.images import pixels_digest
from guda_cli.data.queries import Query
from guda_cli.errors import DataError, RecipeError, UsageError
from guda_cli.families.pixels import Pixels
from guda_cli.settings import reading as recipes
from guda_cli.workflow.keys import steps
from guda_cli.workflow.keys.operations import DataRef
from guda_cli.workflow.models import drawing
from guda_cli.workflow.project.model_record import StoredModel
from guda_cli.workflow.scoring import remembered
from tests.golden.test_action_keys import DATA, FULL, RECIPE

CONDITIONAL = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, class_conditional=True))
SEVERAL = DataRef("d" * 64, "0" * 64, {"one": 20, "two": 31}, 50, (1, 8, 8))


def with_dropout(recipe: sections.Recipe, share: float) -> sections.Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, class_dropout=share))


class TestKeys:
    def test_dropout_moves_conditional_trainings_only(self) -> None:
        key = steps.train(RECIPE, DATA, None).key
        assert steps.train(with_dropout(RECIPE, 0.3), DATA, None).key == key
        conditional = steps.train(CONDITIONAL, DATA, None).key
        assert conditional != key
        assert steps.train(with_dropout(CONDITIONAL, 0.3), DATA, None).key != conditional

    def test_the_network_has_a_class_a_group_and_the_null_class(self) -> None:
        config = Pixels().configs(CONDITIONAL, DATA.shape, ["two", "one"])
        assert config["classes"] == ["one", "two"]
        assert config["unet"]["num_class_embeds"] == 3
        assert "null_class" not in config["unet"]
        assert "class_conditional" not in config["unet"]
        plain = Pixels().configs(RECIPE, DATA.shape, DATA.counts)
        assert set(plain) == {"unet", "scheduler"}
        assert "num_class_embeds" not in plain["unet"]

    def test_never_trained_without_class_it_has_no_null_class(self) -> None:
        config = Pixels().configs(with_dropout(CONDITIONAL, 0.0), DATA.shape, DATA.counts)
        assert config["unet"]["num_class_embeds"] == 3
        assert config["unet"]["null_class"] is False

    def test_images_in_several_groups_have_no_class(self) -> None:
        steps.train(RECIPE, SEVERAL, None)
        with pytest.raises(RecipeError, match="exactly one group"):
            steps.train(CONDITIONAL, SEVERAL, None)

    @pytest.mark.parametrize("share", [-0.1, 1.0, 7])
    def test_dropout_is_a_share(self, share: float) -> None:
        with pytest.raises(RecipeError, match="class_dropout"):
            recipes.from_dict({"train": {"class_dropout": share}})


class TestSampling:
    SETTINGS = drawing.Settings(5, "ddim", 10, 0)

    def test_keys_of_unconditional_samples_know_no_classes(self) -> None:
        action = drawing.action(FULL, FULL, self.SETTINGS)
        assert action.params == {"count": 5, "sampler": "ddim", "steps": 10, "seed": 0}
        assert action.forwards == 50

    def test_classes_and_guidance_are_in_the_key_and_guidance_costs_double(self) -> None:
        settings = dataclasses.replace(self.SETTINGS, classes=("a", "b"))
        guided = dataclasses.replace(settings, guidance=2.0)
        found = [drawing.action(FULL, FULL, s) for s in (self.SETTINGS, settings, guided)]
        assert len({action.key for action in found}) == 3
        assert [action.forwards for action in found] == [50, 50, 100]
        assert [settings.condition_of(i) for i in range(5)] == ["a", "b", "a", "b", "a"]

    def test_all_classes_in_turn_unless_some_are_chosen(self) -> None:
        classes = Classes(("a", "b", "c"), 3)
        assert drawing.settings_for(classes, self.SETTINGS, None, None).classes == ("a", "b", "c")
        chosen = drawing.settings_for(classes, self.SETTINGS, ["c", "a"], 2.5)
        assert (chosen.classes, chosen.guidance) == (("c", "a"), 2.5)
        assert drawing.settings_for(None, self.SETTINGS, None, None) == self.SETTINGS

    @pytest.mark.parametrize(("names", "guidance"), [(["a"], None), (None, 2.0), (None, 1.0)])
    def test_an_unconditional_model_takes_neither(
        self, names: list[str] | None, guidance: float | None
    ) -> None:
        with pytest.raises(UsageError, match="needs a class-conditional model"):
            drawing.settings_for(None, self.SETTINGS, names, guidance)

    def test_unknown_class_and_guidance_without_null_class(self) -> None:
        with pytest.raises(UsageError, match="did you mean 'cat'"):
            drawing.settings_for(Classes(("cat", "dog"), 2), self.SETTINGS, ["cta"], None)
        with pytest.raises(UsageError, match="null class"):
            drawing.settings_for(Classes(("cat", "dog"), None), self.SETTINGS, None, 2.0)
        assert drawing.settings_for(Classes(("cat", "dog"), None), self.SETTINGS, None, 1.0).guidance == 1.0


class TestStoredQueries:
    @staticmethod
    def queries(*conditions: str | None) -> list[Query]:
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (1, 4, 4), dtype=np.uint8) for _ in conditions]
        return [
            Query(f"{i}.png", x, pixels_digest(x), condition)
            for i, (x, condition) in enumerate(zip(images, conditions, strict=True))
        ]

    def test_conditions_come_back(self) -> None:
        queries = self.queries("cat", None, "naïve ☃")
        again = remembered.unpack(remembered.pack(queries))
        for one, two in zip(queries, again, strict=True):
            assert (one.name, one.condition, one.digest, one.pixels_digest) == (
                two.name, two.condition, two.digest, two.pixels_digest,
            )  # fmt: skip
            assert np.array_equal(one.pixels, two.pixels)

    def test_blobs_from_before_classes(self) -> None:
        """They hold [name, digest] for each query, and queries without class still give these bytes."""
        from safetensors.numpy import save

        queries = self.queries(None, None)
        listing = json.dumps([[query.name, query.pixels_digest] for query in queries])
        old = save({"pixels": np.stack([query.pixels for query in queries])}, {"queries": listing})
        assert [query.digest for query in remembered.unpack(old)] == [query.digest for query in queries]
        assert remembered.pack(queries) == old


class TestFit:
    @staticmethod
    def read(config: dict[str, Any], conditional: bool = True, groups: str = "ba") -> Classes | None:
        model = StoredModel(FULL, lambda name: json.dumps(config).encode())
        return model.classes(conditional, groups)

    def test_the_null_class_is_the_last(self) -> None:
        names = {"classes": ["a", "b"]}
        for unet, null in (
            ({"num_class_embeds": 3}, 2),
            ({"num_class_embeds": 3, "null_class": False}, None),
            ({"num_class_embeds": 2, "null_class": False}, None),
        ):
            assert self.read({**names, "unet": unet}) == Classes(("a", "b"), null)
        assert self.read({"unet": {}}, conditional=False) is None

    def test_a_recipe_that_says_otherwise(self) -> None:
        with pytest.raises(RecipeError, match=r"unconditional, but model\.class_conditional is true"):
            self.read({"unet": {}})
        with pytest.raises(RecipeError, match=r"class-conditional, but model\.class_conditional is false"):
            self.read({"classes": ["a", "b"], "unet": {"num_class_embeds": 3}}, conditional=False)

    def test_data_of_other_groups(self) -> None:
        with pytest.raises(DataError, match="not the groups of the data") as caught:
            self.read({"classes": ["a", "b"], "unet": {"num_class_embeds": 3}}, groups="ac")
        assert "--from" in caught.value.fix


def test_labels_are_the_groups_in_sorted_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guda_cli.console import Console
    from guda_cli.store import Store
    from guda_cli.workflow.models.spaces import open_space
    from guda_cli.workflow.project.project import Project
    from tests.workflow.fixtures import draw

    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "images", ("red", "green", "blue"), images=2)
    values = {"data": {"source": "folder", "path": "images", "size": 8, "channels": 1}}
    for conditional in (True, False):
        recipe = recipes.from_dict({**values, "model": {"class_conditional": conditional}})
        project = Project(recipe, Store.open(tmp_path / "store", create=True), Console(quiet=True))
        labels = open_space(project, None).training_conditions  # type: ignore[arg-type]
        if not conditional:
            assert labels is None
            continue
        assert labels is not None
        groups = [name.split("/")[0] for name in project.dataset().names]
        assert [("blue", "green", "red")[label] for label in labels.tolist()] == groups
