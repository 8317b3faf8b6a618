"""`guda score --import`: another method's scores from a file."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guda_cli.attribution.rank_agreement import METRICS, metrics
from tests.workflow.fixtures import GROUPS, QUERIES, Cli, here, tree
from tests.workflow.oracle import SEEDS, without_torch
from tests.workflow.test_bench import CEILING, averaged, report, rows, scored

IMAGES = [f"q/0000{i}.png" for i in range(QUERIES)]
HEAD = "image,group,score\n"


def entries(table: np.ndarray, images: list[str] = IMAGES) -> list[dict[str, Any]]:
    return [
        {"image": image, "group": group, "score": float(table[i, j])}
        for i, image in enumerate(images)
        for j, group in enumerate(GROUPS)
    ]


def write_csv(path: str, listed: list[dict[str, Any]], encoding: str = "utf-8") -> str:
    with Path(path).open("w", encoding=encoding, newline="") as file:
        out = csv.DictWriter(file, ("score", "note", "group", "image"), restval="x, y")
        out.writeheader()
        out.writerows(listed)
    return path


@pytest.fixture
def table() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(5)).normal(size=(QUERIES, len(GROUPS)))


def imported(cli: Cli, path: str, *more: object) -> dict[str, Any]:
    return cli("score", "--import", path, "--json", *more).document


class TestFormats:
    def test_csv_and_json_are_the_same(self, cli: Cli, bench: Path, documents, table: np.ndarray) -> None:
        listed = entries(table)
        write_csv("bom.csv", listed, "utf-8-sig")
        write_csv("plain.csv", listed)
        spaced = Path("plain.csv").read_text().replace("\r\n", "\n").replace(",", ", ")
        Path("spaced.csv").write_text(spaced)
        Path("excel.csv").write_text("sep=;\n" + spaced.replace(", ", ";"), encoding="utf-16")
        Path("tabs.csv").write_text(spaced.replace(", ", "\t"))
        Path("list.json").write_text(json.dumps(listed))
        Path("dict.json").write_text(json.dumps({"scores": listed}, indent=0))
        Path("lines.json").write_text("\ufeff" + "\n".join(map(json.dumps, listed)))
        printed = (
            cli("score", "q", "--method", "logo", "--csv").stdout,
            cli("score", "q", "--method", "logo", "--json").stdout,
        )
        for name, text in zip(("ours.csv", "ours.json"), printed, strict=True):
            Path(name).write_text(text)
            done = cli("score", "--import", name, "--name", name, "--json").document
            assert (done["images"], done["groups"]) == (QUERIES, len(GROUPS)), "what guda prints it reads"
        Path("one.json").write_text(printed[1].splitlines()[0])
        assert imported(cli, "one.json")["images"] == 1
        several = cli("score", "q", "--method", "logo,similarity", "--csv").stdout
        Path("several.csv").write_text(several)
        assert "several methods" in cli("score", "--import", "several.csv", code=3).stderr
        keys = set()
        for path in (
            "bom.csv",
            "plain.csv",
            "spaced.csv",
            "excel.csv",
            "tabs.csv",
            "list.json",
            "dict.json",
            "lines.json",
        ):
            done = cli("score", "--import", path, "--name", "mine", "--json")
            [found] = documents(done.stdout)
            assert (found["name"], found["images"], found["groups"]) == ("mine", QUERIES, len(GROUPS))
            keys.add(found["key"])
        assert len(keys) == 1
        truth = [scored(cli, "logo", GROUPS, "--seeds", s) for s in SEEDS]
        row = rows(report(cli))["mine"]
        expected = averaged([metrics(table, one) for one in truth])
        for name in METRICS:
            assert row["metrics"][name]["value"] == pytest.approx(expected[name].mean(), abs=1e-9)
        assert (row["kind"], row["prepare_forwards"], row["query_forwards"]) == ("imported", None, None)

    def test_names_and_paths_of_images(self, cli: Cli, bench: Path, table: np.ndarray) -> None:
        shutil.copytree("q", "elsewhere/deep")
        keys = set()
        for names in (IMAGES, [Path(i).name for i in IMAGES], [str(Path(i).absolute()) for i in IMAGES],
                      [f"deep/0000{i}.png" for i in range(QUERIES)]):  # fmt: skip
            write_csv("elsewhere/x.csv", entries(table, names))
            keys.add(imported(cli, "elsewhere/x.csv")["key"])
        assert len(keys) == 1, "known names, short ones, absolute ones, and from the file's folder"
        shutil.rmtree("q")
        shutil.rmtree("elsewhere/deep")
        write_csv("elsewhere/x.csv", entries(table))
        assert imported(cli, "elsewhere/x.csv")["key"] in keys, "scored images need not be there any more"
        without_torch(["score", "--import", "elsewhere/x.csv"])

    def test_said_for_people(self, cli: Cli, bench: Path, table: np.ndarray) -> None:
        write_csv("theirs.csv", entries(table))
        text = cli("score", "--import", "theirs.csv").stdout
        assert text == "theirs: 4 images, 4 groups; guda report --against logo shows them\n"


class TestInTheTables:
    def test_a_copy_of_one_seed_agrees_with_it_fully(self, cli: Cli, bench: Path) -> None:
        groups = report(cli)["groups"]
        one, other = (scored(cli, "logo", groups, "--seeds", s) for s in SEEDS)
        listed = [
            {"image": image, "group": group, "score": one[i, j]}
            for i, image in enumerate(IMAGES) for j, group in enumerate(groups)
        ]  # fmt: skip
        write_csv("copy.csv", listed)
        imported(cli, "copy.csv")
        row = rows(report(cli))["copy"]["metrics"]
        for name in ("top1", "mrr", "ndcg@3", "spearman", "kendall", "wpra"):
            expected = (1.0 + metrics(one, other)[name].mean()) / 2.0
            assert row[name]["value"] == pytest.approx(expected, abs=1e-9), name
        alone = rows(report(cli, "--seeds", SEEDS[0]))["copy"]["metrics"]
        for name in ("top1", "mrr", "ndcg@3:linear", "kendall", "wpra"):
            assert alone[name]["value"] == pytest.approx(1.0)
        assert alone["rbo"]["value"] == pytest.approx(1 - 0.9 ** len(groups))
        assert {*rows(report(cli, "--method", "copy"))} == {"copy", "random", CEILING}

    def test_centred_with_the_others(self, cli: Cli, bench: Path, table: np.ndarray) -> None:
        write_csv("mine.csv", entries(table))
        write_csv("shifted.csv", entries(table + np.array([9.0, 0.0, -9.0, 4.0])))
        imported(cli, "mine.csv")
        imported(cli, "shifted.csv")
        found = rows(report(cli, "--center"))
        for name in METRICS:
            values = (found[which]["metrics"][name]["value"] for which in ("mine", "shifted"))
            assert next(values) == pytest.approx(next(values), abs=1e-9)
        assert rows(report(cli))["mine"]["metrics"] != rows(report(cli))["shifted"]["metrics"]

    def test_the_last_file_of_a_name_counts(self, cli: Cli, bench: Path, table: np.ndarray) -> None:
        write_csv("a.csv", entries(table))
        write_csv("b.csv", entries(-table))
        seen = []
        for path in ("a.csv", "b.csv", "a.csv"):
            imported(cli, path, "--name", "mine")
            seen.append(rows(report(cli))["mine"]["metrics"])
        assert seen[0] == seen[2] != seen[1]

    def test_a_part_is_named_and_left_out(self, cli: Cli, bench: Path, table: np.ndarray) -> None:
        write_csv("part.csv", entries(table)[:-1])
        imported(cli, "part.csv")
        found = report(cli)
        assert "part" not in rows(found)
        assert found["warnings"] == [
            "not in the tables: part: 1 of 4 images lack the score of some group"
        ]  # fmt: skip

    def test_groups_together_have_one_name(self, cli: Cli, bench: Path) -> None:
        Path("x.csv").write_text(HEAD + "q/00000.png,dune+amber,1\n")
        [scores] = json.loads(here().read_bytes(self.outputs(imported(cli, "x.csv")["key"]))).values()
        assert scores == {"amber+dune": 1.0}
        Path("x.csv").write_text(HEAD + "q/00000.png,dune+amber,1\nq/00000.png,amber+dune,2\n")
        assert "entry 2 repeats" in cli("score", "--import", "x.csv", code=3).stderr

    @staticmethod
    def outputs(key: str) -> str:
        record = here().lookup(key)
        assert record is not None
        return record.outputs["scores"]


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "said", "code"),
        [
            (HEAD + "q/00000.png,ambre,1\n", "did you mean 'amber'", 3),
            (HEAD + "q/00000.png,amber+bleu,1\n", "did you mean 'blue'", 3),
            (HEAD + "q/0000.png,amber,1\n", "did you mean '0000", 3),
            (HEAD + "x" * 9000 + ",amber,1\n", "unknown image", 3),
            (HEAD + "q/00000.png,amber,nan\n", "'nan' is no finite number", 3),
            (HEAD + "q/00000.png,amber,-inf\n", "no finite number", 3),
            (HEAD + "q/00000.png,amber,much\n", "entry 1: 'much'", 3),
            (HEAD + "q/00000.png,amber,1\nq/00000.png,amber,1\n", "entry 2 repeats", 3),
            (HEAD + "q/00000.png,amber,1\n00000.png,amber,1\n", "scored twice for amber", 3),
            (HEAD + "q/00000.png,amber,1\nq/00000.png,,1\n", "entry 2 has no group", 3),
            (HEAD + "q/00000.png,amber\n", "entry 1 has no score", 3),
            (HEAD, "holds no score", 3),
            ("", "no column image, group, score", 3),
            ("image,groups,score\na,b,1\n", "no column group", 3),
            ("0,1\n2,3\n", "no column image, group, score", 3),
            (HEAD + '"' + "a" * 140_000 + '",amber,1\n', "not valid CSV", 3),
            ("[1, 2]", "not a list of entries", 3),
            ('{"scores": {"a": 1}}', "not a list of entries", 3),
            ("[{", "not valid JSON", 3),
            ("[" * 100_000, "not valid JSON", 3),
            ("[]", "holds no score", 3),
            ('[{"image": "q/00000.png", "group": "amber"}]', "entry 1 has no score", 3),
            ('[{"image": "q/00000.png", "group": "amber", "score": NaN}]', "no finite number", 3),
            ('[{"image": "q/00000.png", "group": "amber", "score": true}]', "no finite number", 3),
            ('[{"image": "q/00000.png", "group": "amber", "score": [1]}]', "no finite number", 3),
            ('[{"image": "q/00000.png", "group": "amber", "score": 1' + "0" * 400 + "}]", "no finite", 3),
        ],
    )
    def test_bad_content(self, cli: Cli, project: Path, text: str, said: str, code: int) -> None:
        Path("x.csv").write_text(text)
        before = tree(project / ".guda")
        done = cli("score", "--import", "x.csv", code=code)
        assert said in done.stderr
        assert len(done.stderr) < 12_000
        assert tree(project / ".guda") == before

    def test_bad_files(self, cli: Cli, project: Path) -> None:
        Path("binary.csv").write_bytes(Path("q/00000.png").read_bytes())
        Path("folder.csv").mkdir()
        Path("picture.csv").write_text(HEAD + "binary.csv,amber,1\n")
        with Path("huge.csv").open("wb") as file:
            file.truncate((256 << 20) + 1)
        for path, said in (
            ("binary.csv", "binary.csv is not UTF-8 text"), ("folder.csv", "cannot read folder.csv"),
            ("absent.csv", "cannot read absent.csv"), ("huge.csv", "larger than 256 MB"),
        ):  # fmt: skip
            assert said in cli("score", "--import", path, code=3).stderr
        done = imported(cli, "picture.csv")
        assert done["images"] == 1, "an image is known by its content"
        Path("binary.csv").write_text("no image")
        assert "binary.csv" in cli("score", "--import", "picture.csv", code=3).stderr

    def test_several_images_of_one_short_name(self, cli: Cli, bench: Path) -> None:
        shutil.copytree("q", "other")
        shutil.move("other/00001.png", "other/00000.png")
        cli("score", "other/00000.png", "--method", "similarity")
        Path("x.csv").write_text(HEAD + "00000.png,amber,1\n")
        done = cli("score", "--import", "x.csv", code=3)
        assert "several scored images are called 00000.png" in done.stderr

    @pytest.mark.parametrize(
        ("options", "said"),
        [(("q",), "from the file"), (("--dry-run",), "--dry-run"), (("--name", "trak"), "method of its own")],
    )
    def test_bad_options(self, cli: Cli, project: Path, options: tuple[str, ...], said: str) -> None:
        Path("x.csv").write_text(HEAD + "q/00000.png,amber,1\n")
        assert said in cli("score", "--import", "x.csv", *options, code=2).stderr
        assert "--import" in cli("score", "q", "--name", "mine", code=2).stderr
        assert not list(here().records("import"))

    def test_without_a_full_model(self, cli: Cli, project: Path) -> None:
        Path("x.csv").write_text(HEAD + "q/00000.png,amber,1\n")
        done = cli("score", "--import", "x.csv", "--set", "train.seed=9", "--json", code=4)
        assert done.document["fix"] == "guda train"
