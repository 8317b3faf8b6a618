"""The agreement report's content: every method against the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guda_cli.attribution import methods as all_methods
from guda_cli.attribution import oracle_seeds as oracles
from guda_cli.attribution.bootstrap import bootstrap_interval
from guda_cli.attribution.rank_agreement import METRICS, random_expectation, rbo_max
from guda_cli.attribution.true_correlation import LEAST, Correlation, OracleNoise
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import UsageError, unknown
from guda_cli.phrases import plural
from guda_cli.report.agreement.content import (
    CEILING,
    RANDOM,
    AgreementReport,
    AgreementRow,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.settings.reading import dump
from guda_cli.store import ActionRecord
from guda_cli.workflow.judging.bench import Bench, open_bench
from guda_cli.workflow.judging.rivals import Found, Rival, find_rivals, spent, variant_name
from guda_cli.workflow.judging.subset_models import SubsetModels, open_subsets
from guda_cli.workflow.keys.operations import UNLEARN
from guda_cli.workflow.project import losses
from guda_cli.workflow.project.counterfactual_kinds import SUBSETS
from guda_cli.workflow.project.project import Project, now, provenance
from guda_cli.workflow.scoring.asked_scores import Asked

BANDS = 10  # of timesteps, in the plot of the ceiling against t


def build(
    project: Project,
    weightings_asked: Sequence[str],
    *,
    methods: Sequence[str] = (),
    centred: bool = False,
    seeds: Sequence[int] = (),
    asked: Asked | None = None,
) -> AgreementReport:
    """What was scored under the full model with the recipe's settings, or as `asked`, against the oracle.

    `methods` restricts the rows (`guda`, `similarity`, ...: the first word of their names). Raises
    MissingError without an oracle or images that it scored.
    """
    bench = open_bench(project, centred=centred, seeds=seeds, asked=asked)
    found = find_rivals(bench)
    rivals = _asked(found.rivals, methods)
    logo = spent(model.record for what in bench.columns for model in bench.found.groups[what])
    logo_forwards, logo_seconds = (total / len(bench.found.seeds) for total in logo)
    subsets = open_subsets(bench)
    tables = [
        _table(bench, rivals, name, (logo_forwards, logo_seconds), subsets) for name in weightings_asked
    ]
    return AgreementReport(
        title=f"Which method agrees with retraining? ({project.recipe.name})",
        recipe_name=project.recipe.name,
        recipe_yaml=dump(project.recipe),
        oracle=bench.found.method,
        seeds=bench.found.seeds,
        groups=tuple(what.name for what in bench.columns),
        left_out=bench.left_out,
        queries=len(bench.queries),
        centred=centred,
        grid=_grid_words(bench),
        rbo_max=rbo_max(len(bench.columns)),
        created=now(),
        tables=tuple(tables),
        bands=_bands(bench),
        steps=_steps(bench, rivals, tables),
        logo_forwards=logo_forwards,
        logo_seconds=logo_seconds,
        warnings=_warnings(bench, found),
        provenance=_provenance(bench),
    )


def _asked(rivals: list[Rival], asked: Sequence[str]) -> list[Rival]:
    """The rivals of these names, all for none; UsageError for a name that no method and no import has."""
    known = {rival.name.split(" (")[0] for rival in rivals} | {rival.name for rival in rivals}
    for name in asked:
        if name not in known and name not in all_methods.names():
            raise UsageError(unknown("method", name, sorted(known.union(all_methods.names()))))
    return [r for r in rivals if not asked or r.name in asked or r.name.split(" (")[0] in asked]


def intervals(values: Mapping[str, Array]) -> dict[str, Interval]:
    """Mean and bootstrap interval of each metric's values [queries]."""
    return {name: Interval(*bootstrap_interval(values[name], seed=0)) for name in METRICS}


def correlations(found: Correlation | None) -> dict[str, Interval]:
    """The columns `corr` and `corr:true`, as far as they are known."""
    pair = {} if found is None else {"corr": found.plain, "corr:true": found.true}
    return {name: Interval(*values) for name, values in pair.items() if values is not None}


def _table(
    bench: Bench,
    rivals: Sequence[Rival],
    weighting: str,
    logo: tuple[float, float],
    subsets: tuple[SubsetModels | None, tuple[str, ...]],
) -> AgreementTable:
    truth = bench.oracle(weighting)
    noise = OracleNoise(truth)
    rows = []
    for rival in rivals:
        scores = rival.scores(weighting)
        metrics = intervals(oracles.against_seeds(scores, truth))
        metrics |= correlations(noise.correlation(scores)) | _datamodel(subsets[0], [scores], weighting)
        rows.append(_row(rival, metrics, logo))
    rows.append(_random_row(truth, noise, subsets[0]))
    of_oracle = _datamodel(subsets[0], truth, weighting)
    if len(truth) > 1:
        rows.append(_ceiling_row(bench, truth, noise, logo, of_oracle))
    elif of_oracle:
        rows.append(AgreementRow("LOGO itself", CEILING, of_oracle))
    unit = "nats" if weighting == "elbo" and bench.grid.unbiased else "weighted squared error"
    remarks = _remarks(noise) + subsets[1]
    return AgreementTable(weighting, unit, tuple(rows), noise.single, noise.of_mean, remarks)


def _datamodel(subsets: SubsetModels | None, scores: Sequence[Array], weighting: str) -> dict[str, Interval]:
    """The column `lds`, where there are subset models: of each of `scores`, averaged."""
    if subsets is None:
        return {}
    values = np.mean([subsets.judged(each, weighting) for each in scores], axis=0)
    return {"lds": Interval(*bootstrap_interval(values, seed=0))}


def _random_row(truth: Sequence[Array], noise: OracleNoise, subsets: SubsetModels | None) -> AgreementRow:
    chance = [random_expectation(matrix) for matrix in truth]
    mean = {name: np.mean([values[name] for values in chance], axis=0) for name in METRICS}
    nothing = (0.0, 0.0, 0.0)
    expected = correlations(Correlation(nothing, nothing if noise.reliable else None))
    if subsets is not None:
        expected["lds"] = Interval(*nothing)
    return AgreementRow("random", RANDOM, intervals(mean) | expected, 0.0, 0.0, 0.0, 0.0)


def _remarks(noise: OracleNoise) -> tuple[str, ...]:
    """Why there is no `corr:true`, where there is none."""
    if noise.of_mean is None:
        return ("There is no true corr, as it takes two seeds of the oracle to know its noise.",)
    if not noise.reliable:
        return (
            f"There is no true corr: the mean oracle's reliability ({noise.of_mean:.2f}) is under {LEAST:g}; "
            "divided by the root of so small a number, nothing but error would be left.",
        )
    return ()


def _row(rival: Rival, metrics: dict[str, Interval], logo: tuple[float, float]) -> AgreementRow:
    cost = rival.cost
    return AgreementRow(
        rival.name, rival.kind, metrics,
        cost.prepare_forwards, cost.prepare_seconds, cost.query_forwards, cost.query_seconds,
        _ratio(logo[0], cost.prepare_forwards), _ratio(logo[1], cost.prepare_seconds), rival.settings,
    )  # fmt: skip


def _ceiling_row(
    bench: Bench,
    truth: list[Array],
    noise: OracleNoise,
    logo: tuple[float, float],
    lds: dict[str, Interval],
) -> AgreementRow:
    per_query = float(bench.grid.rows * (1 + len(bench.columns)))
    metrics = intervals(oracles.ceiling(truth)) | correlations(noise.of_another_seed()) | lds
    return AgreementRow("ceiling (LOGO, other seed)", CEILING, metrics, *logo, per_query, None, 1.0, 1.0)


def _ratio(whole: float, part: float | None) -> float | None:
    return whole / part if part else None


def _bands(bench: Bench) -> tuple[BandPoint, ...]:
    """The ceiling within each of `BANDS` runs of timesteps that the grid reaches; needs two seeds."""
    if len(bench.found.seeds) < 2:
        return ()
    edges = np.rint(np.linspace(0, bench.schedule.T, BANDS + 1)).astype(int).tolist()
    out = []
    for low, high in itertools.pairwise(edges):
        inside = (bench.grid.timesteps > low) & (bench.grid.timesteps <= high)
        if not inside.any():
            continue
        truth = bench.oracle(f"band:{low + 1}-{high}")
        noise = OracleNoise(truth)
        values = intervals(oracles.ceiling(truth)) | correlations(noise.of_another_seed())
        out.append(BandPoint(low + 1, high, values, noise.single))
    return tuple(out)


def _steps(bench: Bench, rivals: Sequence[Rival], tables: Sequence[AgreementTable]) -> tuple[StepPoint, ...]:
    """Points of unlearning settings that differ in their number of steps alone."""
    alike: dict[str, list[Rival]] = {}
    for rival in rivals:
        if "steps" in rival.settings and not isinstance(rival.settings.get("seed"), list):
            others = str(sorted((k, str(v)) for k, v in rival.settings.items() if k != "steps"))
            alike.setdefault(others, []).append(rival)
    out = []
    for several in alike.values():
        if len(several) < 2:
            continue
        rest = {key: value for key, value in several[0].settings.items() if key != "steps"}
        label = variant_name(bench, rest).removeprefix("guda (").removesuffix(")")
        for table in tables:
            metrics = {row.name: row.metrics for row in table.rows}
            for rival in sorted(several, key=lambda r: int(r.settings["steps"])):
                steps = int(rival.settings["steps"])
                out.append(StepPoint(label, table.weighting, steps, metrics[rival.name]))
    return tuple(out)


def _grid_words(bench: Bench) -> str:
    draws, n = bench.grid.timesteps.shape
    steps = plural(n, "timestep", "timesteps")
    return f"{steps} ({grids.name_of(bench.grid_spec)}) x {plural(draws, 'draw', 'draws')}"


def _warnings(bench: Bench, found: Found) -> tuple[str, ...]:
    out = [f"not in the tables: {text}" for text in found.incomplete]
    lacking = [what.name for what in bench.found.lacking]
    if lacking:
        out.append(f"not judged, as the oracle has no model without them: {', '.join(lacking)}")
    if len(bench.found.seeds) < 2:
        out.append(
            "one oracle seed only: there is no ceiling, so nothing says how much of the oracle is signal "
            "(guda train --each-group --seeds A,B)"
        )
    if bench.project.recipe.train.seed in bench.found.seeds and not bench.project.recipe.model.registered:
        out.append("an oracle seed is the full model's own: unlearned models share its initialisation")
    return (*_lost(bench), *out, *bench.notes)


def _lost(bench: Bench) -> list[str]:
    """What is damaged or gone of the oracle, of the subset models, and of what is judged."""
    project, full = bench.project, bench.found.full

    def mine(record: ActionRecord) -> bool:
        of_model = full.outputs["weights"] in (record.inputs.get("full"), record.inputs.get("weights"))
        return of_model or record.operation == "import"

    out = list(bench.found.lost)
    out += losses.of_models(project, SUBSETS, full, (), lambda seed: True)
    out += losses.of_others(project, mine, ("score", "import", "attribution"), "guda score IMAGES")
    return out + losses.of_others(project, mine, (UNLEARN,), "guda unlearn --all")


def _provenance(bench: Bench) -> dict[str, Any]:
    return {
        **provenance(),
        "dataset": {"digest": bench.project.data.blob, "images": bench.project.data.images},
        "full": bench.found.full.outputs["weights"],
        "oracle": {label: r.outputs["weights"] for label, r in bench.found.records().items() if label},
        "grid": dict(bench.grid_spec),
        "compute": dict(bench.compute),
        "bootstrap": {"resamples": 2000, "seed": 0, "over": "queries"},
    }


def check_weightings(text: str) -> list[str]:
    """`elbo,uniform` as names, each parsed once; UsageError for an unknown one, or for none."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UsageError("no weighting was named", fix="--weighting elbo,uniform")
    for name in names:
        weightings.parse(name)
    return names
