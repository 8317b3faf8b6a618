"""`guda report --against logo`: every method judged by retrained models of two seeds."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from guda_cli.attribution.bootstrap import bootstrap_interval
from guda_cli.attribution.rank_agreement import METRICS, metrics, random_expectation
from guda_cli.attribution.true_correlation import OracleNoise
from guda_cli.console import Console
from guda_cli.sections import Recipe, TrainSpec, UnlearnSpec
from guda_cli.session import Options, Session
from guda_cli.unlearning import catalog
from guda_cli.workflow.judging.rivals import variant_name
from guda_cli.workflow.keys import removal
from guda_cli.workflow.project.counterfactual_kinds import LOGO
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.counterfactuals import oracle_seeds
from tests.workflow.fixtures import GROUPS, QUERIES, ROWS, Cli, here, record
from tests.workflow.oracle import RIVALS, SEEDS, matrix, without_torch

NAMES = {"guda": "guda (retrack)", "similarity": "similarity (pixels)"}
JUDGED = [NAMES.get(name, name) for name in ("guda", *RIVALS) if name != "random"]
CEILING = "ceiling (LOGO, other seed)"


def report(cli: Cli, *more: object) -> dict[str, Any]:
    return cli("report", "--against", "logo", "--json", *more).document


def rows(document: dict[str, Any], table: int = 0) -> dict[str, dict[str, Any]]:
    found = {row["method"]: row for row in document["tables"][table]["rows"]}
    assert len(found) == len(document["tables"][table]["rows"]), "each name once"
    return found


def scored(cli: Cli, method: str, groups: Sequence[str] = GROUPS, *more: object) -> np.ndarray:
    return matrix(cli("score", "q", "--method", method, "--json", *more).documents, groups)


def averaged(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.mean([part[name] for part in parts], axis=0) for name in METRICS}


def assert_row(row: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    for name in METRICS:
        value, low, high = bootstrap_interval(expected[name], seed=0)
        assert row["metrics"][name] == pytest.approx({"value": value, "low": low, "high": high}, abs=1e-9), (
            name
        )


def project_here() -> Project:
    session = Session(Options(), Console(quiet=True))
    return Project(session.recipe(), session.open_store(create=False), session.console)


class TestOracleOfSeveralSeeds:
    def test_scores_are_the_mean_over_seeds(self, cli: Cli, bench: Path, documents) -> None:
        for weighting in ("elbo", "min-snr:5"):
            parts = [scored(cli, "logo", GROUPS, "--weighting", weighting, "--seeds", s) for s in SEEDS]
            mean = scored(cli, "logo", GROUPS, "--weighting", weighting)
            np.testing.assert_allclose(mean, np.mean(parts, axis=0), rtol=1e-9)
            assert not np.allclose(*parts)
        done = cli("score", "q", "--method", "logo", "--json")
        for document in documents(done.stdout):
            assert {*document["models"]} == {"full"} | {f"{g} (seed {s})" for g in GROUPS for s in SEEDS}
        assert "mean of seeds 2, 3" in cli("score", "q", "--method", "logo").stdout

    def test_seeds_that_are_not_there(self, cli: Cli, bench: Path) -> None:
        done = cli("score", "q", "--method", "logo", "--seeds", "2,7", "--json", code=4)
        assert done.document["fix"] == "guda train --each-group --seeds 2,7"
        assert "2;3" in cli("score", "q", "--method", "logo", "--seeds", "2;3", code=2).stderr
        here().forget(record("train", "dune").key)  # of seed 3
        done = cli("score", "q", "--method", "logo", "--group", "dune", "--seeds", "2,3", "--json", code=4)
        assert done.document["fix"] == "guda train --without dune --seeds 2,3"

    def test_the_seeds_with_the_most_groups_are_taken(self, cli: Cli, bench: Path) -> None:
        here().forget(record("train", "dune").key)
        [first, *_] = cli("score", "q", "--method", "logo", "--json").documents
        assert {*first["models"]} == {"full", *GROUPS}, "seed 2 alone"
        [plan] = cli("status", "--logo", "--json").documents
        logo = [step for step in plan["steps"] if step["what"].startswith("model without")]
        assert [step["what"] for step in logo] == [f"model without {g}, seed 2" for g in GROUPS]
        assert {step["status"] for step in logo} == {"cached"}

    def test_the_full_models_seed_only_where_no_other_has_as_many(self, bench: Path) -> None:
        project, store = project_here(), here()
        full, groups = project.require_full(), removal.of_groups(GROUPS, project.data.counts)
        own = project.recipe.train.seed
        for what in groups:  # an oracle of the full model's seed: what it holds plays no part
            made = LOGO.action(project, full, what, own)
            store.publish(
                made.key, operation="train", version=made.version, params=dict(made.params),
                inputs=dict(made.inputs), outputs=dict(record("train", what.name).outputs), provenance={},
            )  # fmt: skip
        assert oracle_seeds(project, full, groups) == SEEDS
        for seed in SEEDS:
            store.forget(LOGO.action(project, full, groups[0], seed).key)
        assert oracle_seeds(project, full, groups) == (own,)
        assert oracle_seeds(project, full, groups[1:]) == SEEDS

    def test_training_again_trains_nothing(self, cli: Cli, bench: Path) -> None:
        document = cli("train", "--each-group", "--seeds", "3,2,3", "--json").document
        assert (document["ran"], len(document["models"])) == (0, 8)
        assert len({model["weights"] for model in document["models"]}) == 8
        for args in (["--seeds", "2"], ["--seeds", "x", "--each-group"]):
            assert "--seeds" in cli("train", *args, code=2).stderr


class TestTables:
    @pytest.mark.parametrize("centre", [False, True])
    def test_rows_are_what_the_scores_give(self, cli: Cli, bench: Path, documents, centre: bool) -> None:
        def ready(scores: np.ndarray) -> np.ndarray:
            return scores - scores.mean(axis=0) if centre else scores

        weightings = ("elbo", "uniform")
        done = cli("report", "--against", "logo", "--json", "--weighting", ",".join(weightings),
                   *(["--center"] if centre else []))  # fmt: skip
        [found] = documents(done.stdout)
        assert (found["seeds"], found["queries"], found["centred"]) == ([*SEEDS], QUERIES, centre)
        assert sorted(found["groups"]) == sorted(GROUPS)
        assert found["warnings"] == []
        for i, weighting in enumerate(weightings):
            how, table = ("--weighting", weighting), rows(found, i)
            assert found["tables"][i]["weighting"] == weighting
            assert [*table][-2:] == ["random", CEILING]
            assert sorted([*table][:-2]) == sorted(JUDGED)
            truth = [ready(scored(cli, "logo", found["groups"], *how, "--seeds", s)) for s in SEEDS]
            for method in ("guda", *RIVALS):
                if method != "random":
                    guess = ready(scored(cli, method, found["groups"], *how))
                    expected = averaged([metrics(guess, one) for one in truth])
                    assert_row(table[NAMES.get(method, method)], expected)
                    self.assert_correlation(table[NAMES.get(method, method)], guess, truth)
            assert_row(table["random"], averaged([random_expectation(one) for one in truth]))
            assert_row(table[CEILING], averaged([metrics(*pair) for pair in itertools.permutations(truth)]))
            self.assert_reliability(found["tables"][i], truth)
        assert [t["unit"] for t in found["tables"]] == ["nats", "weighted squared error"]

    @staticmethod
    def assert_correlation(row: dict[str, Any], guess: np.ndarray, truth: list[np.ndarray]) -> None:
        found = OracleNoise(truth).correlation(guess)
        for name, expected in (("corr", found.plain), ("corr:true", found.true)):
            assert (name in row["metrics"]) == (expected is not None)
            if expected is not None:
                assert [*row["metrics"][name].values()] == pytest.approx(expected, abs=1e-9)

    @staticmethod
    def assert_reliability(table: dict[str, Any], truth: list[np.ndarray]) -> None:
        left = [m - m.mean(axis=0) - m.mean(axis=1, keepdims=True) + m.mean() for m in truth]
        r = float(np.corrcoef(left[0].ravel(), left[1].ravel())[0, 1])
        assert table["reliability"] == pytest.approx(r, abs=1e-9)
        assert table["reliability_mean"] == pytest.approx(2 * r / (1 + r) if r > 0 else r, abs=1e-9)

    def test_costs(self, cli: Cli, bench: Path) -> None:
        found = report(cli)
        table = rows(found)
        trained, unlearned = ([r for r in here().records(op) if (r.params.get("without") or {}).get("groups")]
                              for op in ("train", "unlearn"))  # fmt: skip
        logo = sum(r.provenance["forwards"] for r in trained) / len(SEEDS)
        guda = sum(r.provenance["forwards"] for r in unlearned)
        assert found["logo"]["forwards"] == logo == table[CEILING]["prepare_forwards"]
        assert table["guda (retrack)"]["prepare_forwards"] == guda
        assert table["guda (retrack)"]["speedup_forwards"] == pytest.approx(logo / guda)
        assert table["guda (retrack)"]["query_forwards"] == ROWS * (1 + len(GROUPS))
        pool = 3 * len(GROUPS)
        assert table["trak"]["prepare_forwards"] == 3 * 2 * pool, "a gradient at 2 timesteps an image"
        assert table["das"]["prepare_forwards"] == 4 * 2 * pool
        assert table["trak"]["query_forwards"] == table["das"]["query_forwards"] == 3 * 2
        assert table["mucs"]["prepare_forwards"] == 2 * pool
        assert table["similarity (pixels)"]["prepare_forwards"] == 0
        assert table["similarity (pixels)"]["speedup_forwards"] is None
        cli("score", "q/00002.png", "--method", "trak")
        assert rows(report(cli))["trak"]["query_forwards"] == 3 * 2, "reading costs nothing"

    def test_the_ceiling_by_band(self, cli: Cli, bench: Path) -> None:
        bands = report(cli)["bands"]
        assert [(b["t_low"], b["t_high"]) for b in bands] == [(t, t + 4) for t in range(1, 51, 5)]
        truth = [scored(cli, "logo", GROUPS, "--weighting", "band:11-15", "--seeds", s) for s in SEEDS]
        both = averaged([metrics(*pair) for pair in itertools.permutations(truth)])
        assert bands[2]["metrics"]["spearman"]["value"] == pytest.approx(both["spearman"].mean(), abs=1e-9)

    def test_some_rows_and_some_seeds(self, cli: Cli, bench: Path) -> None:
        assert [*rows(report(cli, "--method", "trak,guda"))][-2:] == ["random", CEILING]
        assert {*rows(report(cli, "--method", "trak,guda"))} == {"trak", "guda (retrack)", "random", CEILING}
        assert "did you mean 'trak'" in cli("report", "--against", "logo", "--method", "trk", code=2).stderr
        one = report(cli, "--seeds", "3")
        assert one["seeds"] == [3]
        assert (one["bands"], one["tables"][0]["reliability"]) == ([], None)
        assert CEILING not in rows(one)
        assert "one oracle seed only" in one["warnings"][0]
        assert "corr" in rows(one)["trak"]["metrics"]
        assert "corr:true" not in rows(one)["trak"]["metrics"]
        assert "There is no true corr" in " ".join(one["tables"][0]["notes"])
        truth = scored(cli, "logo", one["groups"], "--seeds", 3)
        assert_row(rows(one)["trak"], metrics(scored(cli, "trak", one["groups"]), truth))

    def test_the_aggregation_is_chosen_when_read(self, cli: Cli, bench: Path) -> None:
        found = report(cli, "--aggregate", "max")
        truth = [scored(cli, "logo", found["groups"], "--seeds", s) for s in SEEDS]
        guess = scored(cli, "similarity", found["groups"], "--aggregate", "max")
        row = rows(found)["similarity (pixels)"]
        assert_row(row, averaged([metrics(guess, one) for one in truth]))
        assert row["settings"]["aggregate"] == "max"

    def test_no_torch(self, bench: Path) -> None:
        without_torch(
            ["report", "--against", "logo", "--weighting", "elbo,uniform", "--center"], ["status", "--logo"]
        )

    def test_other_outputs(self, cli: Cli, bench: Path) -> None:
        done = cli("report", "--against", "logo")
        assert not cli("report", "--against", "logo", "--html", "deep/r.html").stdout
        page = Path("deep/r.html").read_text()
        text = " ".join(done.stdout.split())
        latex = cli("report", "--against", "logo", "--latex").stdout
        table = csv.DictReader(io.StringIO(cli("report", "--against", "logo", "--csv").stdout))
        assert [row["method"] for row in table] == [*rows(report(cli))]
        assert r"\begin{tabular}" in latex
        for name in JUDGED:
            assert name in text
            assert name in page
            assert name in latex
        assert "<svg" in page
        assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*""", page)
        assert "Reliability of the oracle" in text


class TestVariants:
    def test_operators_steps_and_seeds_are_rows_of_their_own(self, cli: Cli, bench: Path, documents) -> None:
        for sets in (["unlearn.steps=2"], ["unlearn.seed=7"],
                     ["unlearn.operator=finetune", "unlearn.steps=2"]):  # fmt: skip
            options = [word for each in sets for word in ("--set", each)]
            cli("unlearn", "--all", "--no-null", *options)
            cli("score", "q", *options)
        weightings = ("min-snr:5", "uniform")
        [found] = documents(
            cli("report", "--against", "logo", "--json", "--weighting", ",".join(weightings)).stdout
        )
        base, steps, seed, mean = (
            "guda (retrack)", "guda (retrack, steps 2)", "guda (retrack, seed 7)",
            "guda (retrack), mean of 2 seeds",
        )  # fmt: skip
        table = rows(found)
        assert {*table} - {*JUDGED, "random", CEILING} == {steps, seed, mean, "guda (finetune, steps 2)"}
        truth = [scored(cli, "logo", found["groups"], "--seeds", s) for s in SEEDS]
        parts = [scored(cli, "guda", found["groups"], *more) for more in ((), ("--set", "unlearn.seed=7"))]
        assert_row(table[mean], averaged([metrics(np.mean(parts, axis=0), one) for one in truth]))
        assert table[mean]["prepare_forwards"] == 2 * table[base]["prepare_forwards"]
        assert table[mean]["settings"]["seed"] == [0, 7]
        points = [(p["operator"], p["weighting"], p["steps"]) for p in found["steps"]]
        assert points == [("retrack", weighting, n) for weighting in weightings for n in (2, 5)]
        assert found["steps"][0]["metrics"] == table[steps]["metrics"]
        assert found["steps"][1]["metrics"] == table[base]["metrics"]
        assert found["warnings"] == []

    def test_settings_that_differ_are_named(self, cli: Cli, bench: Path) -> None:
        several = ["siss", "siss", "neggrad"]
        for operator, sets in zip(several, ([], ["unlearn.superfactor=0.3"], []), strict=True):
            options = [word for each in sets for word in ("--set", each)]
            cli("unlearn", "--group", "amber", "--no-null", "--operator", operator, "--steps", 1, *options)
        cli("unlearn", "--group", "amber", "--no-null", "--params", "lora:2", "--guard", "--steps", 1)
        said = " ".join(report(cli)["warnings"])
        for settings in ("siss, steps 1", "siss, steps 1, superfactor 0.3", "neggrad, steps 1",
                         "retrack, guard True, params lora:2, steps 1"):  # fmt: skip
            name = f"guda ({settings})"
            assert f"not in the tables: {name}: no unlearned model without blue, cyan, dune" in said

    def test_what_has_not_scored_every_image_is_named_and_left_out(self, cli: Cli, bench: Path) -> None:
        new = ("--set", "attribution.seed=3")
        cli("score", "q/00001.png", "--method", "trak", *new)
        cli("unlearn", "--all", "--no-null", "--steps", 1)
        cli("score", "q/00001.png", "q/00003.png", "--set", "unlearn.steps=1")
        found = report(cli)
        said = [text.removeprefix("not in the tables: ") for text in found["warnings"]]
        assert sorted(said) == [
            f"guda (retrack, steps 1): 2 of {QUERIES} images not scored",
            f"trak (seed 3): 3 of {QUERIES} images not scored",
        ]
        assert {*rows(found)} == {*JUDGED, "random", CEILING}
        cli("score", "q", "--method", "trak", *new)
        assert "trak (seed 3)" in rows(report(cli))

    def test_only_images_of_the_oracle_are_judged(self, cli: Cli, bench: Path) -> None:
        cli("sample", "-n", 6, "--out", "more")
        cli("score", "more", "--method", "similarity")
        assert report(cli)["queries"] == QUERIES
        cli("score", "more", "--method", "logo")
        found = report(cli)
        assert found["queries"] == 6
        assert [*rows(found)] == ["similarity (pixels)", "random", CEILING]
        assert "trak: 2 of 6 images not scored" in " ".join(found["warnings"])

    def test_scores_computed_on_more_threads_count(
        self, cli: Cli, bench: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GUDA_THREADS", "2")
        Path(".guda/documents/compute.json").unlink()
        cli("score", "q", "--method", "trak", "--set", "attribution.seed=6")
        assert "trak (seed 6)" in rows(report(cli))

    def test_groups_together(self, cli: Cli, bench: Path) -> None:
        for seed in SEEDS:
            cli("train", "--without", "cyan+blue", "--seeds", seed, "--set", "train.steps=20")
        cli("score", "q", "--method", "logo,similarity")
        found = report(cli)
        assert sorted(found["groups"]) == sorted([*GROUPS, "blue+cyan"])
        assert "guda (retrack): no unlearned model without blue+cyan" in found["warnings"][0]
        truth = [scored(cli, "logo", found["groups"], "--seeds", s) for s in SEEDS]
        named = [word for group in found["groups"] for word in ("--group", group)]
        guess = scored(cli, "similarity", found["groups"], *named)
        assert_row(rows(found)["similarity (pixels)"], averaged([metrics(guess, one) for one in truth]))


class TestMissing:
    def test_without_an_oracle(self, cli: Cli, project: Path) -> None:
        done = cli("report", "--against", "logo", "--json", code=4)
        assert done.document["fix"] == "guda train --each-group"

    def test_without_scores_of_it(self, cli: Cli, bench: Path) -> None:
        for each in here().records("score"):
            if each.params["method"] == "logo":
                here().forget(each.key)
        done = cli("report", "--against", "logo", "--json", code=4)
        assert done.document["fix"] == "guda score IMAGES --method logo"

    def test_groups_without_an_oracle_are_named(self, cli: Cli, bench: Path) -> None:
        for _ in SEEDS:
            here().forget(record("train", "dune").key)
        found = report(cli)
        assert sorted(found["groups"]) == ["amber", "blue", "cyan"]
        assert "dune" in found["warnings"][0]
        truth = [scored(cli, "logo", found["groups"], "--seeds", s) for s in SEEDS]
        guess = scored(cli, "trak", found["groups"])
        assert_row(rows(found)["trak"], averaged([metrics(guess, one) for one in truth]))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--against", "lgo"), "--against logo"),
            (("--against", "logo", "--weighting", "elbo,unifrm"), "uniform"),
            (("--against", "logo", "--weighting", ","), "no weighting"),
            (("--against", "logo", "--csv", "--latex"), "exclude"),
            (("--against", "logo", "--seeds", "two"), "--seeds"),
            (("--center",), "--against logo"),
            (("--latex",), "--against logo"),
            (("--seeds", "2"), "--against logo"),
            (("--method", "trak,das"), "one method a report"),
        ],
    )
    def test_bad_options(self, cli: Cli, bench: Path, options: tuple[str, ...], said: str) -> None:
        assert said in cli("report", *options, code=2).stderr


def test_garbage_collection_keeps_the_bench(cli: Cli, bench: Path) -> None:
    Path("mine.csv").write_text("image,group,score\nq/00000.png,blue,1\n")
    cli("score", "--import", "mine.csv")
    keep = {r.key for r in here().records()}
    kept_tables = {table["table"]: table["rows"] for table in here().tables()}
    before = report(cli)
    cli("unlearn", "--group", "amber", "--no-null", "--steps", 1)
    foreign = record("unlearn").key
    cli("score", "q/00000.png", "--group", "amber", "--set", "unlearn.steps=1")
    removed = cli("store", "gc", "--force", "--grace", 0, "--json").document
    assert foreign in {each["name"] for each in removed["records"]}
    assert {r.key for r in here().records()} == keep
    assert {table["table"]: table["rows"] for table in here().tables()} == kept_tables
    cli("store", "verify")
    after = report(cli)
    assert after["tables"] == before["tables"]
    without_torch(["score", "q", "--method", ",".join(["guda", "logo", *RIVALS]), "--instances", 1])


def test_an_unlearning_of_an_earlier_version_is_named_by_what_it_lacks() -> None:
    """With flips images were unlearned as stored, and AWSS' prototypes were shorter than 1."""
    recipe = Recipe(train=TrainSpec(flip=True), unlearn=UnlearnSpec(operator="anchor:awss"))
    project = cast(Any, SimpleNamespace(project=SimpleNamespace(recipe=recipe)))
    now = {**catalog.settings(recipe.unlearn), "flip": True}
    earlier = {name: value for name, value in now.items() if name not in ("flip", "unit_prototypes")}
    assert variant_name(project, now) == "guda (anchor:awss)"
    assert variant_name(project, earlier) == "guda (anchor:awss, without unit_prototypes, without flip)"
