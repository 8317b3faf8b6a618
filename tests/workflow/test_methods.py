"""`guda score --method`: every method on the store, alone and together, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from guda_cli.attribution import methods
from tests.devices import packing
from tests.workflow.fixtures import GROUPS, IMAGES, QUERIES, Cli, flip, here, record, scores, tree
from tests.workflow.oracle import CHEAP, PER_GROUP, RIVALS, matrix, without_torch

METHODS = tuple(row.name for row in methods.METHODS if row.name != "subsets")  # ranks no groups
OF_IMAGES = tuple(name for name in RIVALS if name != "random")
WITH_NETWORKS = tuple(name for name in OF_IMAGES if name != "similarity")
EVERY = ",".join(METHODS)


def tables(operation: str) -> dict[str, Path]:
    """Folders of the store's tables of an operation by method (or by key)."""
    found = [t for t in here().tables() if t["spec"]["operation"] == operation]
    root = here().root / "tables"
    return {t["spec"]["params"].get("method", t["table"]): root / t["table"] for t in found}


class TestAllMethods:
    def test_each_gives_one_ranked_document_an_image(self, cli: Cli, bench: Path, documents) -> None:
        found = documents(cli("score", "q", "--method", EVERY, "--json").stdout)
        assert [d["method"] for d in found] == [name for name in METHODS for _ in range(QUERIES)]
        for document in found:
            values = [s["score"] for s in document["scores"]]
            assert values == sorted(values, reverse=True)
            assert sorted(s["group"] for s in document["scores"]) == sorted(GROUPS)
            if document["method"] in RIVALS:
                assert document["unit"] == f"{document['method']} score"
                assert {s["se"] for s in document["scores"]} == {None}
                assert document["sign"].startswith("Higher")

    def test_methods_differ(self, cli: Cli, bench: Path) -> None:
        found = cli("score", "q", "--method", EVERY, "--json").documents
        of = {name: matrix([d for d in found if d["method"] == name], GROUPS) for name in METHODS}
        for table in of.values():
            assert np.isfinite(table).all()
            assert table.std(axis=0).min() > 0, "images differ"
            assert table.std(axis=1).min() > 0, "groups differ"
        firsts = [tuple(np.round(table.ravel(), 12)) for table in of.values()]
        assert len(set(firsts)) == len(METHODS)

    def test_a_second_run_computes_nothing(self, cli: Cli, bench: Path) -> None:
        command = ("score", "q", "--method", EVERY, "--instances", 2, "--json")
        before, first = tree(bench), cli(*command)
        second = cli(*command)
        assert second.stdout == first.stdout
        assert tree(bench) == before
        assert second.stderr.count("no network was run") == len(RIVALS)
        assert second.stderr.count("no model was run") == 2
        without_torch(command, ["report", "--method", "trak"], ["report", "--method", "random"])

    def test_similarity_of_pixels_and_random_never_need_torch(self, project: Path) -> None:
        without_torch(["score", "q", "--method", "similarity,random"])

    def test_printed_for_people(self, cli: Cli, bench: Path) -> None:
        text = cli("score", "q/00000.png", "--method", "similarity,das").stdout
        assert "similarity (pixels), mean over a group's images.\nHigher: by this method" in text
        assert "das (per_group 3, timesteps 2" in text
        rows = cli("score", "q", "--method", "similarity,trak", "--csv").stdout.splitlines()
        assert len(rows) == 1 + 2 * QUERIES * len(GROUPS), "one header"

    def test_a_report_gives_the_numbers_of_the_scores(self, cli: Cli, bench: Path, documents) -> None:
        for name in RIVALS:
            scored = scores(cli("score", "q", "--method", name, "--json").documents)
            shown = 2 * (name in OF_IMAGES)
            done = cli("report", "--method", name, "--instances", shown, "--html", "r.html", "--json")
            [report] = documents(done.stdout)
            assert scores(report["queries"]) == scored
            assert all(len(q.get("instances", [])) == shown for q in report["queries"])
        assert "guda score IMAGE --method trak" in cli(
            "report", "--method", "trak", "--set", "attribution.seed=5", code=4
        ).stderr  # fmt: skip


class TestCompanions:
    def test_alone_or_with_others_or_in_another_order(
        self, cli: Cli, bench: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        method = ",".join(OF_IMAGES)
        together = cli("score", "q", "--method", method, "--instances", 48, "--json").documents
        for folder in tables("instance-scores").values():
            shutil.rmtree(folder)
        monkeypatch.setenv("GUDA_BATCH_SIZE", "5")
        alone = [cli("score", f"q/0000{i}.png", "--method", method, "--instances", 48, "--json").documents
                 for i in (3, 1)]  # fmt: skip
        for documents in alone:
            for new in documents:
                [old] = [d for d in together if (d["method"], d["image"]) == (new["method"], new["image"])]
                one, other = ({i["image"]: i["score"] for i in d["instances"]} for d in (old, new))
                assert one.keys() == other.keys()
                values = np.array([[one[name], other[name]] for name in one])
                np.testing.assert_allclose(
                    *values.T, rtol=10 * packing(), atol=packing() * np.abs(values).max()
                )

    def test_one_image_twice_is_computed_once(self, cli: Cli, bench: Path) -> None:
        shutil.rmtree(tables("instance-scores")["trak"])
        shutil.copy("q/00000.png", "twin.png")
        done = cli("score", "q/00000.png", "twin.png", "--method", "trak", "--json")
        one, twin = done.documents
        assert one["scores"] == twin["scores"]
        assert "2 images: 6 forward-equivalents" in done.stderr, "one image at 2 timesteps, three each"
        kept = record("score").provenance
        assert (kept["images"], kept["computed"], kept["forwards"]) == (2, 1, 6.0)

    def test_random_is_a_function_of_image_group_and_seed(self, cli: Cli, bench: Path) -> None:
        def one(image: str, *more: object) -> dict[str, float]:
            [found] = scores(cli("score", image, "--method", "random", "--json", *more).documents).values()
            return found

        base = one("q/00000.png")
        assert one("q/00000.png", "--group", "dune") == {"dune": base["dune"]}
        assert one("q/00001.png") != base
        assert one("q/00000.png", "--set", "attribution.seed=1") != base
        assert len(set(base.values())) == len(GROUPS)


class TestTrainingImages:
    @pytest.mark.parametrize("name", OF_IMAGES)
    def test_are_named_and_sorted(self, cli: Cli, bench: Path, documents, name: str) -> None:
        found = documents(cli("score", "q", "--method", name, "--instances", 3, "--json").stdout)
        for document in found:
            listed = document["instances"]
            assert [each["rank"] for each in listed] == [1, 2, 3]
            assert len({each["image"] for each in listed}) == 3
            values = [each["score"] for each in listed]
            assert values == sorted(values, reverse=True)
            for each in listed:
                group, _, file = each["image"].partition("/")
                assert each["groups"] == [group]
                assert group in GROUPS
                assert re.fullmatch(r"\d\d\.png", file)
                assert int(file[:2]) < IMAGES

    @pytest.mark.parametrize(
        ("how", "by_hand"),
        [("mean", np.mean), ("max", np.max), ("sum", np.sum), ("top:2", lambda v: np.mean(np.sort(v)[-2:]))],
    )
    def test_give_the_groups_scores(self, cli: Cli, bench: Path, how: str, by_hand) -> None:
        pool = {name: PER_GROUP if name in WITH_NETWORKS else IMAGES for name in OF_IMAGES}
        command = ("score", "q", "--method", ",".join(OF_IMAGES), "--group", "amber", "--group", "blue+dune")
        done = cli(*command, "--instances", 999, "--aggregate", how, "--json")
        for document in done.documents:
            listed, found = document["instances"], {s["group"]: s["score"] for s in document["scores"]}
            assert len(listed) == pool[document["method"]] * len(GROUPS), "all that are scored"
            for group in ("amber", "blue+dune"):
                of_group = [i["score"] for i in listed if {*i["groups"]} & {*group.split("+")}]
                assert len(of_group) == pool[document["method"]] * (1 + group.count("+"))
                assert found[group] == pytest.approx(by_hand(of_group), rel=1e-9)
            assert document["settings"]["aggregate"] == how

    def test_only_of_methods_that_have_them(self, cli: Cli, bench: Path) -> None:
        found = cli("score", "q", "--method", "guda,similarity", "--instances", 2, "--json").documents
        assert {d["method"] for d in found if "instances" in d} == {"similarity"}


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "said", "code"),
        [
            (("--method", "similarty"), "did you mean 'similarity'", 2),
            (("--method", "guda,d_trak"), "did you mean 'd-trak'", 2),
            (("--method", ","), "no method", 2),
            (("--instances", 3), "guda scores groups", 2),
            (("--method", "logo,random", "--instances", 3), "--method similarity", 2),
            (("--method", "similarity", "--map", "m.png"), "--map", 2),
            (("--method", "similarity", "--seeds", "2"), "--method logo", 2),
            (("--method", "trak", "--aggregate", "median"), "median", 2),
            (("--method", "trak", "--group", "ambre"), "did you mean 'amber'", 2),
            (("--method", "similarity", "--encoder", "./nowhere"), "./nowhere", 2),
            (("--method", "similarity,das", "--set", "attribution.timesteps=51"), "timesteps=50", 3),
            (("--method", "trak", "--set", "attribution.projection=0"), "attribution.projection", 2),
            (("--method", "trak", "--class", "blue"), "class-conditional", 2),
        ],
    )
    def test_before_any_work(
        self, cli: Cli, project: Path, options: tuple[object, ...], said: str, code: int
    ) -> None:
        before = tree(project)
        assert said in cli("score", "q", *options, code=code).stderr
        assert tree(project) == before

    def test_without_a_full_model(self, cli: Cli, project: Path) -> None:
        done = cli("score", "q", "--method", "trak", "--set", "train.seed=9", "--json", code=4)
        assert done.document["fix"] == "guda train"

    def test_a_dry_run_says_what_there_is_to_do(self, cli: Cli, bench: Path, documents) -> None:
        before = tree(bench)
        new = ("--set", "attribution.seed=4")
        [plan] = documents(cli("score", "q", "--method", EVERY, "--dry-run", "--json").stdout)
        assert {step["status"] for step in plan["steps"]} == {"cached"}
        shutil.copy("q/00000.png", "new.png")
        [plan] = documents(cli("score", "q", "--method", "trak,mucs", *new, "--dry-run", "--json").stdout)
        assert [step["status"] for step in plan["steps"]] == ["to do"] * 4
        assert plan["steps"][1]["why"] == f"{QUERIES} of {QUERIES} images"
        assert "trak: training images" in cli("score", "q", "--method", "trak", *new, "--dry-run").stdout
        Path("new.png").unlink()
        assert tree(bench) == before


class TestMendingAndMore:
    def test_a_damaged_table_or_preparation_is_made_again(self, cli: Cli, bench: Path) -> None:
        undamaged = cli("score", "q", "--method", "trak", "--json").stdout
        [segment] = [path.stem for path in tables("instance-scores")["trak"].glob("*.json")
                     if path.stem != "table"]  # fmt: skip
        flip(here(), segment)
        [prepared] = [r for r in here().records("attribution") if r.params["method"] == "trak"]
        flip(here(), prepared.outputs["prepared"])
        done = cli("score", "q", "--method", "trak", "--json")
        assert "quarantined segment" in done.stderr
        assert f"quarantined blob {prepared.outputs['prepared'][:12]}" in done.stderr
        assert "rebuilding trak: training images" in done.stderr
        assert done.stdout == undamaged
        cli("store", "verify")

    def test_maps_of_two_methods_do_not_overwrite_each_other(self, cli: Cli, bench: Path) -> None:
        one = ("score", "q/00000.png", "--method", "guda,logo,similarity", "--top", 1)
        assert "several methods" in cli(*one, "--map", "m.png", code=2).stderr
        cli(*one, "--map", "maps")
        assert {path.name for path in Path("maps").iterdir()} == {"00000-guda.map.png", "00000-logo.map.png"}

    def test_class_conditional_models(self, cli: Cli, template: Path, bench: Path) -> None:
        sets = ("--set", "model.class_conditional=true", "--set", "train.steps=6")
        cli("train", template / "tiny.yaml", *sets, "--set", "attribution.per_group=2",
            "--set", "attribution.timesteps=2", "--set", "attribution.projection=32",
            "--set", "attribution.mucs_steps=1")  # fmt: skip
        method = ",".join(OF_IMAGES)
        one, other = (cli("score", "q/00000.png", "--method", method, *which, "--json").documents
                      for which in ((), ("--class", "cyan")))  # fmt: skip
        assert {d.get("class") for d in one} == {None}
        assert {d["class"] for d in other} == {"cyan"}
        for a, b in zip(one, other, strict=True):
            assert (a["scores"] == b["scores"]) == (a["method"] in ("similarity", "nda")), a["method"]


def params_of(operation: str, method: str) -> list[dict[str, object]]:
    """What decided the store's tables, or preparations, of a method."""
    found = [t["spec"]["params"] for t in here().tables() if t["spec"]["operation"] == operation]
    found += [r.params for r in here().records(operation)]
    return [each for each in found if each.get("method") == method]


def test_what_was_trained_with_flips_is_looked_at_with_flips(cli: Cli, template: Path, project: Path) -> None:
    sets = ["train.flip=true", *CHEAP]
    cli("train", template / "tiny.yaml", *(word for each in sets for word in ("--set", each)))
    cli("score", "q/00000.png", "--method", "trak,mucs,similarity")
    for method in ("trak", "mucs"):
        for operation in ("attribution", "instance-scores", "score"):
            assert [each["flip"] for each in params_of(operation, method)] == [True]
    assert all("flip" not in each for each in params_of("attribution", "similarity"))
    assert "no network was run" in cli("score", "q/00000.png", "--method", "trak").stderr
    cost = [r.provenance["forwards"] for r in here().records("attribution") if r.params["method"] == "trak"]
    assert cost == [2 * 3 * PER_GROUP * len(GROUPS) * 2]  # orientations, a gradient, images, timesteps


def test_only_methods_whose_numbers_changed_are_computed_anew(bench: Path) -> None:
    """The bound of mucs became each row's: what an earlier version scored by it is not taken for this."""
    for operation in ("attribution", "instance-scores", "score"):
        for name in WITH_NETWORKS:
            for each in params_of(operation, name):
                assert each.get("revision", 1) == methods.find(name).revision == (2 if name == "mucs" else 1)


def test_an_earlier_revision_is_no_rival(cli: Cli, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = methods.find("mucs")
    monkeypatch.setitem(methods._OWN, "mucs", dataclasses.replace(row, revision=3))
    assert "mucs" not in judged(cli)
    cli("score", "q", "--method", "mucs")
    assert "mucs" in judged(cli)


def judged(cli: Cli) -> set[str]:
    """Methods of the table."""
    [_, *rows] = csv.reader(cli("report", "--against", "logo", "--csv").stdout.splitlines())
    return {cell for row in rows for cell in row}
