"""YAML of recipes that is too much, too deep, no text, or no number: refused by file and line, in bounds."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guda_cli.errors import RecipeError
from guda_cli.settings.lookup import load
from guda_cli.settings.reading import from_dict, parse


def aliases(levels: int, merged: bool = False) -> str:
    """Mappings or lists, each of nine aliases of the one before."""
    rows = ["a0: &a0 " + ("{x: 1}" if merged else "[x, x]")]
    for level in range(1, levels):
        inner = "[" + ", ".join([f"*a{level - 1}"] * 9) + "]"
        rows.append(f"a{level}: &a{level} " + (f"{{<<: {inner}}}" if merged else inner))
    return "\n".join(rows)


BAD = {
    "aliases": (aliases(12), "is too large"),
    "merges": (aliases(12, merged=True), "is too large"),
    "list within itself": ("data: &a [*a]", "nested too deeply"),
    "mapping within itself": ("data: &a {path: *a}", "nested too deeply"),
    "brackets": ("x: " + "[" * 100_000, "nested too deeply"),
    "closed brackets": ("x: " + "[" * 9_000 + "]" * 9_000, "nested too deeply"),
    "braces": ("data: " + "{a: " * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
    "steps": ("\n".join(" " * depth + "a:" for depth in range(1_200)), "nested too deeply"),
    "digits": ("train: {steps: " + "9" * 5_000 + "}", "line 1, column 16: a number of 5,000 digits"),
    "digits of a float": ("train: {lr: 1." + "9" * 5_000 + "}", "line 1, column 13: a number of"),
    "hexadecimal": ("train: {steps: 0x" + "f" * 5_000 + "}", "line 1, column 16"),
    "sixties": ("train: {steps: 1" + ":59" * 100 + "}", "must be a number within"),
    "beyond floats": ("train: {lr: " + "9" * 399 + "}", "train.lr must be a number within"),
    "infinite": ("train: {lr: .inf}", "train.lr must be a number within"),
    "no number": ("train: {lr: .nan}", "train.lr must be a number within"),
    "tag of a number": ("train:\n  steps: !!int x\n", "near line 3"),
    "half a pair": ('name: "\\ud800"', "name is not valid Unicode"),
    "another half": ('data: {path: "x\\udfffy"}', "data.path is not valid Unicode"),
    "bytes": ('name: !!binary "////"', "name must be text"),
    "object": ('name: !!python/object/apply:os.system ["touch x"]', "line 1, column 7"),
    "list as key": ("? [a, b]\n: 1", "line 1, column 3"),
    "mapping as key": ("{{a: b}: c}", "line 1, column 2"),
    "two documents": ("name: a\n---\nname: b", "line 2, column 1"),
    "NUL": ("name: a\0b", "#x0000"),
    "twice": ("data: {path: x}\ntrain: {steps: 1}\ndata: {size: 8}", "line 3, column 1: data stands"),
    "twice within": ("data:\n  path: x\n  size: 8\n  path: y", "line 4, column 3: path stands there twice"),
    "octal": ("train: {steps: 010}", "train.steps: 010 is no plain whole number"),
    "hours": ("train: {steps: 1:30}", "train.steps: 1:30 is no plain whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    text, said = BAD[name]
    began = time.process_time()
    with pytest.raises(RecipeError) as caught:
        from_dict(parse(text, where="recipe r.yaml"))
    err = caught.value
    assert said in f"{err.message} {err.why}"
    assert len(err.message) + len(err.why) < 2_000
    assert time.process_time() - began < 15  # 59 s once, and ten times that with another level


@pytest.mark.parametrize("text", ["2001-99-99", "2001-02-30", "12:30", "007", "1.10", "1_000", "0x1F", "1e3"])
def test_text_stays_as_it_is_written(text: str) -> None:
    assert from_dict(parse(f"name: {text}")).name == text


def test_what_is_sound_is_read() -> None:
    shared = "train: &a {steps: 1_000, lr: 1e-4}\nunlearn: {<<: *a, lr: 3.0e-5}\n"
    found = from_dict(parse(shared))
    assert (found.train.steps, found.unlearn.steps, found.unlearn.lr) == (1_000, 1_000, 3e-5)
    assert from_dict(parse("train: {steps: 0x10, seed: 0}")).train.steps == 16


def test_files(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    for encoding in ("utf-8-sig", "utf-16"):  # as PowerShell saves them
        recipe.write_text("name: é\ndata: {path: x}\n", encoding)
        assert load(str(recipe))[0].name == "é"
    for data, said in ((b"name: \xe9", "not UTF-8"), (b"#" * (1 << 21), "larger than 1 MB")):
        recipe.write_bytes(data)
        with pytest.raises(RecipeError) as caught:
            load(str(recipe))
        assert said in caught.value.why


@pytest.mark.parametrize("name", ["aliases", "brackets", "digits"])
def test_the_command_ends_by_its_codes(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(BAD[name][0])
    setting = BAD[name][0].partition("\n")[0] if name != "aliases" else "x=&a [*a]"
    for words, code in ((["r.yaml"], 3), (["digits", "--set", f"train.lr={setting}"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "guda_cli", "train", *words, "--dry-run"],
            cwd=tmp_path, capture_output=True, text=True, encoding="utf-8",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("error: ")
        assert len(done.stderr) < 5_000
        assert words[-1][:5] in done.stderr
