"""Completion: what a half-typed word may become; it starts light, is silent, and writes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guda_cli import completions
from guda_cli.sections import Recipe, to_dict
from guda_cli.settings.lookup import override
from guda_cli.settings.reading import apply_sets
from tests.workflow.fixtures import one_thread, project, template, tree

__all__ = ["one_thread", "project", "template"]


def complete(*words: str, shell: str = "fish") -> list[str]:
    """What follows `guda WORDS`, the last of them half typed, by the program's own protocol for shells."""
    line = " ".join(["guda", *words])
    env = {"_GUDA_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    env |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-m", "guda_cli"], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return [one.partition("\t")[0] for one in done.stdout.splitlines() if one]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("score --method gu", ["guda"]),
        ("score --method guda,lo", ["guda,logo"]),
        ("score --weighting min", ["min-snr:5"]),
        ("score --grid stra", ["strata", "strata:even"]),
        ("score --rank per", ["per-image"]),
        ("score --aggregate m", ["mean", "max"]),
        ("score --operator anchor:a", ["anchor:awss"]),
        ("unlearn --params lo", ["lora:4"]),
        ("unlearn --operator neg", ["neggrad"]),
        ("sample --sampler dd", ["ddim", "ddpm"]),
        ("sample --method l", ["logo"]),
        ("report --against l", ["logo"]),
        ("report --weighting elbo,u", ["elbo,uniform"]),
        ("report --regeneration-by g", ["guda"]),
        ("tune --space unlearn.forget_s", ["unlearn.forget_share="]),
        ("train --set train.lr_s", ["train.lr_schedule=constant", "train.lr_schedule=cosine"]),
        ("score --set score.t", ["score.timesteps=50"]),
        ("score --set unlearn.operator=retr", ["unlearn.operator=retrack", "unlearn.operator=retrack-zero"]),
        ("score --set score.d", ["score.draws=", "score.dtype="]),
        ("score --set nothing.x", []),
    ],
)
def test_words(words: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert complete(*words.split()) == found
    assert not list(tmp_path.iterdir())


def test_groups_and_records_of_a_store(project: Path) -> None:
    before = tree(project)
    assert complete("unlearn", "--group", "bl") == ["blue"]
    assert complete("unlearn", "--group", "blue+am") == ["blue+amber"]
    assert "full model" in complete("store", "export", "f")
    assert complete("store", "export", "dat") == []  # no model
    assert complete("store", "show", "dat") == ["dataset"]
    assert complete("store", "unpin", "f") == []  # nothing is pinned
    assert tree(project) == before


def test_a_store_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".guda").mkdir()
    Path(".guda/format.json").write_text("{")
    assert complete("unlearn", "--group", "b") == complete("store", "show", "f") == []


# What goes with some models, or with other settings, alone.
DEPENDENT = (
    "latent.posterior", "unlearn.operator", "train.params", "unlearn.params",
    "diffusion.rescale_betas_zero_snr",
)  # fmt: skip


def test_every_value_offered_is_accepted(tmp_path: Path) -> None:
    plain = to_dict(Recipe())
    for entry in completions.settings(""):
        for value in completions.settings(entry):
            key = entry.removesuffix("=")
            if key in DEPENDENT:
                apply_sets(plain, [value])
            else:
                override(plain, [value], tmp_path)


@pytest.mark.parametrize(
    ("line", "at", "found"),
    [
        ("guda score --set unlearn.operator = re", 5, ["retrack", "retrack-zero"]),
        ("guda score --set unlearn.operator =", 4, None),
        ("guda unlearn --operator anchor : a", 5, ["awss"]),
        ("guda score --weighting = min", 4, ["min-snr:5"]),
        ("guda report --weighting min-snr : 5,el", 5, ["5,elbo"]),
        ("guda score --group 'a b' --grid al", 5, ["all"]),
    ],
)
def test_words_that_bash_has_parted(line: str, at: int, found: list[str] | None) -> None:
    env = {"_GUDA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(at)}
    done = subprocess.run(
        [sys.executable, "-m", "guda_cli"], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    shown = done.stdout.splitlines()
    assert shown == found if found is not None else "retrack" in shown


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_in_a_real_bash(guda, project: Path, tmp_path: Path) -> None:
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = guda("--show-completion", "bash", env=env, code=0).stdout
    (tmp_path / "guda").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m guda_cli "$@"\n')
    (tmp_path / "guda").chmod(0o755)
    lines = [
        script,
        "COMP_WORDS=(guda unlearn --group b); COMP_CWORD=3; _guda_completion guda",
        'printf "%s|" "${COMPREPLY[@]}"; echo',
        "COMP_WORDS=(guda score --set score.grid = strata : e); COMP_CWORD=7; _guda_completion guda",
        'printf "%s|" "${COMPREPLY[@]}"; echo',
        "COMP_WORDS=(guda store export f); COMP_CWORD=3; _guda_completion guda",
        'printf "%s|" "${COMPREPLY[@]}"; echo',
    ]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc"], input="\n".join(lines), env=os.environ | {"PATH": path},
        cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-3:] == ["blue|", "even|", "full\\ model|"]


@pytest.mark.parametrize("words", ["score --set unl", "score --method g", "unlearn --group x"])
def test_it_starts_light(words: str, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from guda_cli.app import run\n"
        "try: run([])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'rich', 'diffusers', 'h5py', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    env = {"_GUDA_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": f"guda {words}"}
    env |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | env, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"
