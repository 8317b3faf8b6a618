"""`guda tune`: which settings are tried, which is chosen, and the command from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guda_cli.errors import RecipeError, UsageError
from guda_cli.families.family import Traits
from guda_cli.sections import to_dict
from guda_cli.settings.lookup import load
from guda_cli.settings.reading import from_dict
from guda_cli.unlearning import catalog
from guda_cli.workflow.judging.candidates import candidates, parse_space, with_settings
from guda_cli.workflow.judging.search import held_out, strength
from guda_cli.workflow.judging.verdict import Verdict, choose, halves, judge
from tests.workflow.fixtures import GROUPS, Cli, here, record, tree
from tests.workflow.oracle import without_torch
from tests.workflow.test_bench import report, rows

RECIPE = from_dict({"name": "r"})


class TestCandidates:
    @pytest.mark.parametrize("operator", [row.name for row in catalog.ROWS])
    def test_are_different_and_begin_with_the_recipe(self, operator: str) -> None:
        recipe = with_settings(RECIPE, {"unlearn.operator": operator})
        found = candidates(recipe, 9, seed=0)
        assert found[0] == {}
        assert len(found) == 9
        decided = [str(catalog.settings(with_settings(recipe, settings).unlearn)) for settings in found]
        assert len(set(decided)) == 9
        for settings in found[1:]:
            assert settings.keys() == catalog.tuning_space(operator).keys()
            assert all(value in catalog.tuning_space(operator)[key] for key, value in settings.items())

    def test_depend_on_the_seed_and_begin_alike(self) -> None:
        several = {n: candidates(RECIPE, n, seed=1) for n in (1, 4, 12)}
        assert several[12][:4] == several[4]
        assert several[4][:1] == several[1] == [{}]
        assert candidates(RECIPE, 12, seed=1) == several[12]
        assert candidates(RECIPE, 12, seed=2) != several[12]

    def test_a_given_space_replaces_the_built_in_one(self) -> None:
        space = parse_space(["unlearn.lr=1e-4,1e-3", "unlearn.cap=null,2"])
        found = candidates(RECIPE, 99, 0, space)
        made = {(u.lr, u.cap) for u in (with_settings(RECIPE, settings).unlearn for settings in found)}
        own = (RECIPE.unlearn.lr, RECIPE.unlearn.cap)
        assert made == {(lr, cap) for lr in (1e-4, 1e-3) for cap in (None, 2.0)} | {own}
        assert len(found) == len(made)

    def test_settings_that_do_not_go_together_are_passed_over(self) -> None:
        space = parse_space(["unlearn.t_min=0.3,0.6", "unlearn.t_max=0.5,1.0"])
        windows = {(s["unlearn.t_min"], s["unlearn.t_max"]) for s in candidates(RECIPE, 99, 0, space)[1:]}
        assert windows == {(0.3, 0.5), (0.3, 1.0), (0.6, 1.0)}

    def test_what_the_model_does_not_admit_is_passed_over(self) -> None:
        def check(recipe: Any) -> None:
            catalog.check(recipe.unlearn, Traits(blocks=("DownBlock2D",)))

        space = parse_space(["unlearn.params=attn,lora:2"])
        assert candidates(RECIPE, 9, 0, space, check) == [{}, {"unlearn.params": "lora:2"}]
        with pytest.raises(RecipeError, match="attention"):
            candidates(RECIPE, 9, 0, parse_space(["unlearn.params=attn"]), check)
        esd = with_settings(RECIPE, {"unlearn.operator": "esd"})
        with pytest.raises(RecipeError, match="class-conditional"):
            candidates(esd, 9, 0, None, check)

    def test_a_space_too_large_to_list(self) -> None:
        names = ("steps", "neighbours", "batch_size", "seed", "lr", "forget_weight", "cap")
        space = {f"unlearn.{name}": range(1, 9) for name in names}
        assert 8 ** len(names) > 1 << 20
        few, many = (candidates(RECIPE, n, 0, space) for n in (3, 8))
        assert many[:3] == few
        assert len({str(settings) for settings in many}) == 8

    @pytest.mark.parametrize(
        ("entry", "error"),
        [("unlearn.lr", UsageError), ("unlearn.lr=", UsageError), ("train.lr=1", UsageError),
         ("unlearn.lr=[1", UsageError), ("unlearn.rate=1", RecipeError), ("unlearn.lr=fast", RecipeError),
         ("unlearn.steps=0", RecipeError), ("unlearn.lr=1,,2", RecipeError),
         ("unlearn.operator=retrak", RecipeError)],
    )  # fmt: skip
    def test_bad_entries(self, entry: str, error: type[Exception]) -> None:
        with pytest.raises(error):
            candidates(RECIPE, 3, 0, parse_space([entry]))


class TestJudge:
    @staticmethod
    def cases(noise: tuple[float, ...], queries: int = 200, groups: int = 3) -> tuple[list[Any], Any]:
        rng = np.random.Generator(np.random.PCG64(11))
        oracle = rng.normal(size=(queries, groups)) * [1.0, 5.0, 0.2] + [0.0, 30.0, -2.0]
        return [oracle + each * oracle.std(axis=0) * rng.normal(size=oracle.shape) for each in noise], oracle

    def test_the_one_whose_columns_go_with_the_oracles_is_best(self) -> None:
        columns, oracle = self.cases((2.0, 0.3, 1.0))
        verdicts = judge(columns, oracle, seed=0)
        expected = [1 / np.sqrt(1 + s**2) for s in (2.0, 0.3, 1.0)]
        np.testing.assert_allclose([v.tuned_on for v in verdicts], expected, atol=0.1)
        np.testing.assert_allclose([v.shown for v in verdicts], expected, atol=0.1)
        assert choose(verdicts, [1.0, 9.0, 2.0], [1.0] * 3) == 1, "the others are cheaper, and behind"
        assert [v.near_best for v in verdicts] == [False, True, False]

    def test_scale_offset_and_what_all_groups_share_do_not_matter(self) -> None:
        columns, oracle = self.cases((1.0,))
        drift = np.linspace(-9.0, 9.0, len(oracle))[:, None]
        changed = 3.0 * columns[0] - [5.0, 1.0, 100.0] + drift
        one, other = judge([columns[0], changed], oracle, seed=0)
        assert one.tuned_on == pytest.approx(other.tuned_on)
        assert one.behind == pytest.approx(0.0, abs=1e-12)

    def test_ranking_within_an_image_is_not_looked_at(self) -> None:
        _, oracle = self.cases((1.0,))
        flat = np.zeros_like(oracle)
        assert judge([oracle, flat], oracle, seed=0)[1].tuned_on == 0.0
        assert judge([-oracle, flat], oracle, seed=0)[0].tuned_on == pytest.approx(-1.0)

    def test_the_cheapest_within_one_standard_error(self) -> None:
        columns, oracle = self.cases((0.30, 0.31, 0.31, 3.0), queries=24)
        verdicts = judge(columns, oracle, seed=0)
        assert [v.near_best for v in verdicts][:3] != [False, False, False]
        near = [i for i, v in enumerate(verdicts) if v.behind <= v.error]
        assert 3 not in near
        assert choose(verdicts, [3.0, 2.0, 1.0, 0.1], [1.0] * 4) == max(near)
        made = [Verdict(0.9, 0.9, 0.0, 0.0), Verdict(0.88, 0.9, 0.02, 0.03), Verdict(0.8, 0.9, 0.1, 0.03)]
        assert choose(made, [5.0, 2.0, 1.0], [1.0, 9.0, 0.1]) == 1
        assert choose(made, [2.0, 2.0, 1.0], [3.0, 2.0, 1.0]) == 1, "of equal costs the gentler"
        assert choose(made, [2.0, 2.0, 1.0], [1.0, 1.0, 1.0]) == 0, "of equally gentle ones the better"

    def test_strength_is_the_rate_times_the_weight(self) -> None:
        assert strength({"lr": 2e-3, "forget_weight": 0.5}) == pytest.approx(1e-3)
        assert strength({"lr": 2e-3, "forget_weight": None}) == strength({"lr": 2e-3}) == 2e-3

    def test_the_error_is_that_of_the_difference(self) -> None:
        """Two alike lie close together, however uncertain each is."""
        columns, oracle = self.cases((1.0, 1.0), queries=60)
        alike = columns[0] + 1e-3 * columns[1]
        first, second = judge([columns[0], alike], oracle, seed=0)
        assert max(first.error, second.error) < 1e-3
        far = judge(columns, oracle, seed=0)
        assert max(v.error for v in far) > 0.01

    def test_halves_are_seeded_and_disjoint(self) -> None:
        for queries in (8, 9):
            one, other = halves(queries, 3)
            assert sorted([*one, *other]) == list(range(queries))
            assert len(one) - len(other) == queries % 2
        assert [*halves(50, 3)[0]] == [*halves(50, 3)[0]] != [*halves(50, 4)[0]]

    def test_only_one_half_decides(self) -> None:
        columns, oracle = self.cases((0.5, 2.0), queries=40)
        swapped = [c.copy() for c in columns]
        _, second = halves(40, 7)
        swapped[0][second], swapped[1][second] = columns[1][second], columns[0][second]
        before, after = judge(columns, oracle, 7), judge(swapped, oracle, 7)
        assert [v.tuned_on for v in before] == [v.tuned_on for v in after]
        assert [v.shown for v in before] == [v.shown for v in after][::-1]


class TestHeldOut:
    def test_is_seeded(self) -> None:
        counts = dict.fromkeys("abcdefgh", 3)
        assert held_out(counts, 3, 0) == held_out(dict.fromkeys("hgfedcba", 3), 3, 0)
        assert len({tuple(held_out(counts, 3, seed)) for seed in range(9)}) > 3
        for number in (0, 7, 8):
            with pytest.raises(UsageError, match=f"--held-out {number} of 8"):
                held_out(counts, number, 0)
        assert len(held_out(counts, 6, 0)) == 6


class TestCommand:
    SHORT = ("--held-out", 2, "-n", 8, "--trials", 2, "--space", "unlearn.steps=1,2")

    def test_from_end_to_end(self, cli: Cli, bench: Path, documents) -> None:
        before, kept = report(cli), {r.key for r in here().records("train")}
        done = cli("tune", *self.SHORT, "--out", "tuned.yaml", "--json")
        [found] = documents(done.stdout)
        assert {r.key for r in here().records("train")} == kept, "the oracle of seed 2 was there"
        assert (found["seeds"], found["queries"], found["weighting"]) == ([2], 8, "min-snr:5")
        assert found["oracle_reliability"] is None
        assert len(found["groups"]) == 2
        assert found["groups"] == held_out(dict.fromkeys(GROUPS, 12), 2, 0)
        own, other = found["trials"]
        assert own["settings"] == catalog.settings(from_dict(self.values()).unlearn)
        assert own["forwards"] == 4 * record("unlearn", "blue").provenance["forwards"] * 5 / self.steps()
        assert other["settings"] == {**own["settings"], "steps": other["settings"]["steps"]}
        assert other["settings"]["steps"] in (1, 2)
        assert found["changes"] == ({"unlearn.steps": other["settings"]["steps"]} if found["chosen"] else {})
        self.read_back(cli, found)
        self.again(cli, bench, found)
        after = report(cli)
        assert after["left_out"] == found["groups"]
        assert sorted(after["groups"]) == sorted({*GROUPS} - {*found["groups"]})
        assert after["queries"] == before["queries"], "images drawn for tuning are not judged"
        assert "guda (retrack)" in rows(after)
        assert not any("steps 1" in text or "steps 2" in text for text in after["warnings"])

    @staticmethod
    def values() -> dict[str, Any]:
        current = here().get_document("current")
        assert current is not None
        return dict(current["recipe"])

    @staticmethod
    def steps() -> int:
        return int(record("unlearn", "blue").params["unlearn"]["steps"])

    def read_back(self, cli: Cli, found: dict[str, Any]) -> None:
        text = Path("tuned.yaml").read_text()
        assert text.startswith(f"# Unlearning settings chosen by guda tune on {', '.join(found['groups'])}")
        recipe, _ = load("tuned.yaml", cwd=Path.cwd())
        assert catalog.settings(recipe.unlearn) == found["trials"][found["chosen"]]["settings"]
        assert {**to_dict(recipe), "unlearn": None} == {**self.values(), "unlearn": None}
        done = cli("unlearn", "--recipe", "tuned.yaml", "--group", found["groups"][0], "--no-null", "--json")
        assert done.document["ran"] == 0, "the trial's own model"

    def again(self, cli: Cli, bench: Path, found: dict[str, Any]) -> None:
        before = tree(bench / ".guda")
        assert cli("tune", *self.SHORT, "--json").document == found
        [plan] = cli("tune", *self.SHORT, "--dry-run", "--json").documents
        assert {step["status"] for step in plan["steps"]} == {"cached"}
        without_torch(["tune", *self.SHORT])
        assert tree(bench / ".guda") == before
        more = cli("tune", *self.SHORT[:-4], "--trials", 1, "--json").document
        [one] = more["trials"]
        assert one["settings"] == found["trials"][0]["settings"]
        for half in ("tuned_on", "shown"):
            assert one["verdict"][half] == found["trials"][0]["verdict"][half]

    def test_an_oracle_of_two_seeds_on_given_images(self, cli: Cli, bench: Path, documents) -> None:
        cli("sample", "-n", 8, "--out", "more")
        options = ("more", "--group", "blue", "--group", "cyan", "--trials", 1, "--seeds", "2,3")
        [found] = documents(cli("tune", *options, "--weighting", "uniform", "--json").stdout)
        assert (found["groups"], found["seeds"]) == (["blue", "cyan"], [2, 3])
        assert found["oracle_reliability"] is not None
        text = " ".join(cli("tune", *options).stdout.split())
        assert "chosen: the settings of the recipe" in text
        assert "correlation with the oracle of blue, cyan" in text
        done = cli("report", "--against", "logo", "--seeds", "2", "--json")
        assert done.document["left_out"] == ["blue", "cyan"]

    def test_an_oracle_that_is_not_there_is_trained(self, cli: Cli, project: Path) -> None:
        [plan] = cli("tune", "--held-out", 1, "-n", 8, "--trials", 1, "--dry-run", "--json").documents
        first = plan["steps"][0]
        assert (first["what"].split(", ")[1], first["status"]) == ("seed 2", "to do")
        assert here().get_document(f"tuned-{record('train').outputs['weights'][:32]}") is None
        done = cli("tune", "--held-out", 1, "-n", 8, "--trials", 1, "--json")
        [group] = done.document["groups"]
        made = record("train", group)
        assert made.params["train"]["seed"] == 2
        assert cli("tune", "--held-out", 1, "-n", 8, "--trials", 1, "--json").document == done.document

    @pytest.mark.parametrize(
        ("options", "said", "code"),
        [
            ((), "--held-out 3 of 4 groups", 2),
            (("--group", "bleu"), "did you mean 'blue'", 2),
            (("--group", "blue", "q"), "4 different images are too few", 2),
            (("--group", "blue", "-n", 4), "8", 2),
            (("--group", "blue", "--weighting", "elbos"), "elbo", 2),
            (("--group", "blue", "--seeds", "2;3"), "--seeds", 2),
            (("--group", "blue", "--space", "train.lr=1"), "unlearn.*", 2),
            (("--group", "blue", "--space", "unlearn.lrr=1"), "did you mean 'lr'", 3),
            (("--group", "blue", "--operator", "esd"), "class-conditional", 3),
            (("--group", "blue", "--operator", "retrak"), "did you mean 'retrack'", 2),
            (("--group", "blue", "--out", "q/00000.png/r.yaml"), "cannot write", 3),
            (("--group", "blue", "--set", "train.seed=9"), "guda train", 4),
        ],
    )
    def test_bad_input_before_any_work(
        self, cli: Cli, project: Path, options: tuple[object, ...], said: str, code: int
    ) -> None:
        before = tree(project)
        assert said in cli("tune", *options, code=code).stderr
        assert tree(project) == before
