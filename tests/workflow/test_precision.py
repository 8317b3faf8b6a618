"""`score.dtype: auto`: on a CPU float32 under the keys it always had, on a device what is found sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guda_cli.jsonable import canonical
from guda_cli.session import Options, Session
from guda_cli.store import ActionRecord
from guda_cli.workflow.project import precision
from guda_cli.workflow.project.compute import COMPUTE, Compute, Form, setup
from guda_cli.workflow.project.precision import Decision, Measured
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring import counterfactuals, deciding
from guda_cli.workflow.scoring.model_terms import ModelTerms
from tests.workflow.fixtures import Cli, here, terms

EXACT = Measured("float32", "", 0.0, 4.0)


def opened(*sets: str) -> tuple[Project, counterfactuals.Counterfactuals]:
    session = Session(Options(sets=sets))
    made = Project(session.recipe(), session.open_store(create=False), session.console)
    return made, counterfactuals.find(made, "guda", (), ())


def sample(made: Project, found: counterfactuals.Counterfactuals) -> deciding.Sample:
    return deciding.Sample(made, found.full, next(found.models()).record, setup("cpu"))


def decided(made: Project, full: ActionRecord, device: str, decision: Decision) -> None:
    """As a run on another device would have left it."""
    action = precision.action(made, full, device, compiled=bool(decision.taken.compiled))
    made.ensure(Job(action, lambda: Made({precision.OUTPUT: canonical(decision.to_dict())})))


class TestRule:
    @pytest.mark.parametrize(
        ("others", "taken"),
        [
            ([("tf32", 0.01, 3.9), ("float16", 0.01, 1.0), ("bfloat16", 0.05, 0.98)], "float16"),
            ([("tf32", 0.01, 3.9), ("float16", 0.01, 1.0), ("bfloat16", 0.05, 0.8)], "bfloat16"),
            ([("tf32", 0.01, 3.9), ("float16", None, None), ("bfloat16", 0.1, 0.8)], "float32"),
            ([("tf32", 0.099, 2.0), ("float16", 0.2, 1.0), ("bfloat16", 1.5, 0.8)], "tf32"),
            ([("tf32", 0.0, 4.0), ("float16", 0.0, 4.0)], "float32"),
        ],
        ids=[
            "as fast, but more exact",
            "the fastest",
            "a tenth is too much, an overflow is none",
            "of the sound ones",
            "nothing gained, nothing risked",
        ],
    )
    def test_the_fastest_sound_one(
        self, others: list[tuple[str, float | None, float | None]], taken: str
    ) -> None:
        measured = [EXACT, *(Measured(name, "", error, seconds) for name, error, seconds in others)]
        assert precision.fastest(measured).dtype == taken

    def test_compiling_pays_where_the_run_is_long_and_is_measured_once(self) -> None:
        known = Decision(Form(), "cuda", (replace(EXACT, seconds=0.001),))
        assert not precision.compiling_pays(known, 100_000)  # saves 50 s
        assert precision.compiling_pays(known, 130_000)  # saves 65 s
        tried = replace(known, measured=(*known.measured, Measured("float32", "whole")))
        assert not precision.compiling_pays(tried, 10**9)

    def test_in_words(self) -> None:
        half = Measured("float16", "whole", 0.012, 0.8)
        found = Decision(Form("float16", "whole"), "cuda", (EXACT, half))
        assert found.words == (
            "float16, compiled on cuda: adds 0.012 of a score's standard error, 5.0 times as fast as float32"
        )
        assert Decision(Form(), "mps", (EXACT,)).words == "float32 on mps"


class TestOnACpu:
    def test_auto_is_float32_with_the_same_keys(self, cli: Cli, project: Path) -> None:
        """The store was scored with the default; with float32 as it was before, nothing is computed again."""
        made, _ = opened()
        assert made.recipe.score.dtype == "auto"
        done = cli("score", "q", "--set", "score.dtype=float32")
        assert "no model was run" in done.stderr
        assert here().get_document(COMPUTE) == {"device": "cpu", "threads": 1, "dtype": "float32"}
        assert not list(here().records("precision"))

    def test_measured_and_kept(self, cli: Cli, project: Path) -> None:
        made, found = opened()
        first = deciding.decide(sample(made, found), [Form(d) for d in deciding.offered(setup("cpu").device)])
        assert [one.dtype for one in first.measured] == ["float32", "float16", "bfloat16"]
        exact, half, brain = (float(one.error or 0.0) for one in first.measured)
        assert exact == 0 < half < brain < 1
        assert first.taken == Form(precision.fastest(list(first.measured)).dtype)
        again, found = opened()
        assert precision.known(again, found.full, "cpu") == first
        assert deciding.decide(sample(again, found), []) == first, "nothing is measured twice"

    @pytest.mark.slow
    def test_compiled_forms_are_measured_too(self, cli: Cli, project: Path) -> None:
        made, found = opened("score.timesteps=3")
        mine = sample(made, found)
        before = deciding.decide(mine, [Form()])
        known = deciding.decide(mine, [mine.compiled(before.taken)], before)
        own = known.measured[-1]
        assert own.compiled == "whole"
        assert 0 <= float(own.error or 0.0) < 1e-3
        assert own.seconds
        assert precision.known(made, found.full, "cpu") == known


class TestOnADevice:
    """What a run on a GPU would find in its store, up to the networks."""

    def compute(self) -> Compute:
        return replace(setup("cpu"), device=_Cuda())  # type: ignore[arg-type]

    def form(self, made: Project, found: counterfactuals.Counterfactuals, forwards: float) -> Form:
        terms_of = ModelTerms(made, found, "auto", 0)
        return deciding.form(made, found, self.compute(), forwards, terms_of.jobs)

    def test_what_was_decided_is_in_the_key(self, project: Path) -> None:
        made, found = opened()
        half = Decision(Form("float16", "whole"), "cuda", (EXACT, Measured("float16", "whole", 0.01, 1.0)))
        decided(made, found.full, "cuda", half)
        made.store.set_document(COMPUTE, {"device": "cuda", "threads": 0, "dtype": "float32"})
        assert self.form(made, found, 10) == half.taken
        read = ModelTerms(made, found, "auto", 0).tables({"kind": "all", "draws": 1, "seed": 0}).compute
        assert read == {"device": "cuda", "threads": 0, "dtype": "float16", "compiled": "whole"}
        explicit, found = opened("score.dtype=bfloat16")
        read = ModelTerms(explicit, found, "auto", 0).tables({"kind": "all", "draws": 1, "seed": 0}).compute
        assert read == {"device": "cuda", "threads": 0, "dtype": "bfloat16"}

    def test_small_runs_are_not_worth_measuring(self, project: Path) -> None:
        made, found = opened()
        assert self.form(made, found, 10) == Form()
        assert not list(made.store.records("precision"))

    def test_a_store_scored_in_float32_before_goes_on_so(self, project: Path) -> None:
        made, found = opened()
        compute = {"device": "cuda", "threads": 0, "dtype": "float32"}
        grid = {"kind": "all", "draws": 1, "seed": 0}
        tables = ModelTerms(made, found, "auto", 0).tables(grid, compute)
        key, spec = tables.layers[0].tables[""]
        made.store.table_publish(key, spec, ["x"], {"terms": np.zeros((1, 1, 50))}, {"unit": "nats"})
        assert self.form(made, found, 1e12) == Form()
        assert not list(made.store.records("precision"))

    def test_plans_say_what_is_measured_or_compiled_first(self, cli: Cli, project: Path) -> None:
        made, found = opened()
        full, how = found.full, {"device": "cuda", "threads": 0, "dtype": "float32"}
        assert precision.steps(made, full, 1e9, "guda score") == [], "the store knows a CPU"
        made.store.set_document(COMPUTE, how)
        [step] = precision.steps(made, full, 1e6, "guda score")
        assert step.what == "measuring how exact forwards must be"
        assert step.forwards == 2 * 2 * 5 * 8 * 8 * 2  # models, times, precisions, images, timesteps, draws
        assert precision.steps(made, full, 4 * step.forwards, "guda score") == []
        slow = replace(EXACT, seconds=0.001)
        decided(made, full, "cuda", Decision(Form(), "cuda", (slow,)))
        [step] = precision.steps(made, full, 1e6, "guda score")
        assert (step.what, step.seconds) == ("compiling the network", precision.COMPILING)
        assert "1,000,000 forwards" in step.why
        assert precision.steps(made, full, 1e4, "guda score") == []
        explicit, _ = opened("score.dtype=float32")
        assert precision.steps(explicit, full, 1e9, "guda score") == []

    def test_status_says_so(self, cli: Cli, project: Path) -> None:
        made, found = opened()
        assert "precision" not in cli("status").stdout
        half = Decision(Form("float16"), "cuda", (EXACT, Measured("float16", "", 0.012, 1.0)))
        decided(made, found.full, "cuda", half)
        made.store.set_document(COMPUTE, {"device": "cuda", "threads": 0, "dtype": "float16"})
        [step] = [s for s in cli("status", "--json").document["steps"] if s["what"] == "precision of scoring"]
        assert step["status"] == "cached"
        assert step["why"] == half.words


class _Cuda:
    """Stands for a CUDA device as far as nothing is put on it."""

    type = "cuda"


def by_model(dtype: str) -> dict[tuple[str, str], np.ndarray]:
    """Terms by the digest of a model's weights and the image, of tables in one precision."""
    found, specs = {}, {table["table"]: table["spec"] for table in here().tables()}
    for (table, row), values in terms(here()).items():
        if specs[table]["params"]["compute"]["dtype"] == dtype:
            found[specs[table]["inputs"]["weights"], row] = values
    return found


def test_weights_are_swapped_in_place_in_half_precision(cli: Cli, project: Path) -> None:
    """Every model's terms are near those in float32, nearer than another model's are."""
    exact = by_model("float32")
    cli("score", "q", "--set", "score.dtype=float16")
    half = by_model("float16")
    assert half.keys() == exact.keys()
    for (weights, row), values in half.items():
        others = {w: float(np.abs(values - exact[w, row]).mean()) for w, r in exact if r == row}
        assert min(others, key=lambda w: others[w]) == weights
        np.testing.assert_allclose(values.sum(), exact[weights, row].sum(), rtol=0.02)
