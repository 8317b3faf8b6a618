"""Every method that has scored the bench's images, found in the store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guda_cli.attribution import aggregate, methods
from guda_cli.diffusion.schedule import Array
from guda_cli.report.agreement.content import IMPORTED, METHOD
from guda_cli.sections import UnlearnSpec, to_dict
from guda_cli.store import ActionRecord
from guda_cli.unlearning import catalog
from guda_cli.workflow.judging.bench import Bench
from guda_cli.workflow.keys.text_settings import orientations
from guda_cli.workflow.scoring import instance_settings
from guda_cli.workflow.scoring.instance_settings import MethodSettings
from guda_cli.workflow.scoring.instance_store import ALSO, ScoreTable, also, preparation
from guda_cli.workflow.scoring.pool import Pool


@dataclass(frozen=True)
class Cost:
    """Preparation for all groups, and one query; forward-equivalents and seconds."""

    prepare_forwards: float | None = None
    prepare_seconds: float | None = None
    query_forwards: float | None = None
    query_seconds: float | None = None


@dataclass(frozen=True)
class Rival:
    """A method with all its scores; `scores(weighting)` is [queries, groups]."""

    name: str
    kind: str
    scores: Callable[[str], Array]
    cost: Cost
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Rivals that have scored every image, and a sentence on each that has not."""

    rivals: list[Rival]
    incomplete: list[str]


def find_rivals(bench: Bench) -> Found:
    """All methods of the store that can be judged on this bench."""
    out = Found([], [])
    _unlearned(bench, out)
    _instances(bench, out)
    _imports(bench, out)
    return out


def spent(records: Iterable[ActionRecord]) -> tuple[float, float]:
    """Forward-equivalents and seconds of actions, resumed ones in full."""
    forwards = seconds = 0.0
    for record in records:
        seen = record.provenance
        forwards += seen.get("forwards") or 0.0
        seconds += (seen.get("wall_seconds") or 0.0) + (seen.get("seconds_before_resume") or 0.0)
    return forwards, seconds


# -- unlearned models -----------------------------------------------------------------------------------


def _unlearned(bench: Bench, out: Found) -> None:
    """Each set of unlearning settings that every group was unlearned with; and means over seeds."""
    complete: dict[str, tuple[dict[str, Any], list[ActionRecord]]] = {}
    for text, models in _variants(bench).items():
        settings = json.loads(text)
        name = variant_name(bench, settings)
        without = [what.name for what in bench.columns if what.name not in models]
        if without:
            out.incomplete.append(f"{name}: no unlearned model without {', '.join(without)}")
            continue
        ordered = [models[what.name] for what in bench.columns]
        lacking = max(bench.lacking(record) for record in ordered)
        if lacking:
            out.incomplete.append(f"{name}: {lacking} of {len(bench.queries)} images not scored")
            continue
        complete[text] = settings, ordered
        out.rivals.append(_unlearned_rival(bench, name, settings, [ordered]))
    for settings, of_seeds in _over_seeds(complete):
        name = f"{variant_name(bench, settings)}, mean of {len(of_seeds)} seeds"
        out.rivals.append(_unlearned_rival(bench, name, settings, of_seeds))


def _variants(bench: Bench) -> dict[str, dict[str, ActionRecord]]:
    """Unlearned models of the bench's full model: by settings (as JSON), then by removal name."""
    full, wanted = bench.found.full, {json.dumps(w.params, sort_keys=True): w.name for w in bench.columns}
    found: dict[str, dict[str, ActionRecord]] = {}
    for record in bench.project.store.records("unlearn"):
        name = wanted.get(json.dumps(record.params["without"], sort_keys=True))
        same = record.inputs["weights"] == full.outputs["weights"]
        if name and same and record.inputs["dataset"] == bench.project.data.blob:
            text = json.dumps(record.params["unlearn"], sort_keys=True)
            found.setdefault(text, {})[name] = record
    return found


def _over_seeds(
    complete: Mapping[str, tuple[dict[str, Any], list[ActionRecord]]],
) -> list[tuple[dict[str, Any], list[list[ActionRecord]]]]:
    """Settings that differ in their seed alone, with the models of each seed."""
    alike: dict[str, list[tuple[dict[str, Any], list[ActionRecord]]]] = {}
    for settings, models in complete.values():
        rest = json.dumps({k: v for k, v in settings.items() if k != "seed"}, sort_keys=True)
        alike.setdefault(rest, []).append((settings, models))
    return [
        ({**several[0][0], "seed": sorted(s["seed"] for s, _ in several)}, [m for _, m in several])
        for several in alike.values()
        if len(several) > 1
    ]


def variant_name(bench: Bench, settings: Mapping[str, Any]) -> str:
    """`guda (retrack)`, with what differs from the recipe's settings of that operator.

    Settings that came later (`params`, `guard`, ...) are named wherever they are in force; what an earlier
    version did not do yet, as lacking. A list of seeds is not.
    """
    later = {name: settings.get(name, default) for name, default in catalog.DEFAULTS.items()}
    operator, spec = str(settings["operator"]), bench.project.recipe.unlearn
    if operator != spec.operator:
        spec = UnlearnSpec(**catalog.switched(to_dict(spec), operator))
    marks = {**catalog.row(operator).also, **orientations(bench.project.recipe)}
    mine = catalog.settings(dataclasses.replace(spec, **later)) | marks
    shown = [
        f"{key} {value}"
        for key, value in settings.items()
        if (key in later or mine.get(key) != value) and not isinstance(value, list)
    ]
    lacking = [f"without {key}" for key in marks if key not in settings]
    return f"guda ({', '.join([operator, *shown, *lacking])})"


def _unlearned_rival(
    bench: Bench, name: str, settings: Mapping[str, Any], of_seeds: list[list[ActionRecord]]
) -> Rival:
    def scores(weighting: str) -> Array:
        return np.asarray(np.mean([bench.scores(models, weighting) for models in of_seeds], axis=0))

    forwards, seconds = spent(record for models in of_seeds for record in models)
    per_query = float(bench.grid.rows * (1 + len(bench.columns) * len(of_seeds)))
    rate = _seconds_a_forward(bench)
    cost = Cost(forwards, seconds, per_query, per_query * rate if rate else None)
    return Rival(name, METHOD, scores, cost, settings)


def _seconds_a_forward(bench: Bench) -> float | None:
    """Measured while scoring with unlearned or retrained models on this bench."""
    records = [r for r in bench.score_records if r.params["method"] in methods.COMPARING]
    forwards, seconds = spent(r for r in records if r.provenance.get("forwards"))
    return seconds / forwards if forwards else None


# -- methods that score training images -----------------------------------------------------------------


def _instances(bench: Bench, out: Found) -> None:
    """Each method and its settings, from the records of what was scored."""
    seen: dict[str, list[ActionRecord]] = {}
    for record in bench.score_records:
        method = record.params["method"]
        if method in methods.names() and methods.find(method).kind == methods.IMAGES:
            text = json.dumps([method, record.params["values"]], sort_keys=True)
            seen.setdefault(text, []).append(record)
    for text, records in seen.items():
        method, values = json.loads(text)
        spec = MethodSettings(method, values, bench.project.recipe.attribution.aggregate)
        wanted = also(bench.project, spec)
        alike = [r for r in records if {name: r.params[name] for name in ALSO & r.params.keys()} == wanted]
        if alike:
            _instance_rival(bench, spec, alike, out)


def _instance_rival(bench: Bench, spec: MethodSettings, records: list[ActionRecord], out: Found) -> None:
    values = spec.values
    prepared = bench.project.store.lookup(preparation(bench.project, bench.found.full, spec).key)
    if prepared is None:
        return
    name = _instance_name(bench, spec, prepared)
    blob = prepared.outputs["prepared"]
    table = ScoreTable.of(bench.project, bench.found.full, spec, blob, bench.compute)
    # Never subtracted from other models' terms, so it may have been computed on another device.
    tables = [table, *table.computed_otherwise()]
    rows = min(tables, key=lambda each: len(each.missing(bench.digests))).read(bench.digests)
    if len(rows) < len(bench.queries):
        lacking = len(bench.queries) - len(rows)
        out.incomplete.append(f"{name}: {lacking} of {len(bench.queries)} images not scored")
        return
    pool = Pool.of(bench.project.dataset(), values.get("per_group"), int(values.get("seed", 0)))
    of_images = np.stack([rows[digest] for digest in bench.digests]).astype(np.float64)
    names = [what.name for what in bench.columns]
    of_groups = aggregate.group_scores(
        of_images,
        pool.members(bench.columns),
        aggregate.parse_aggregation(spec.aggregate),
        groups=names,
    )
    worked = [record for record in records if record.provenance.get("computed")]
    forwards, seconds = spent(worked)
    images = sum(record.provenance["computed"] for record in worked)
    per_query = (forwards / images, seconds / images) if images else (None, None)
    cost = Cost(*spent([prepared]), *per_query)
    settings = {**values, "aggregate": spec.aggregate, "images": len(pool.indices)}
    out.rivals.append(Rival(name, METHOD, lambda _: bench.maybe_centred(of_groups), cost, settings))


def _instance_name(bench: Bench, spec: MethodSettings, prepared: ActionRecord) -> str:
    """Its name, and the settings that are not the recipe's."""
    name = str(prepared.provenance.get("name", spec.method))
    if instance_settings.ENCODER in spec.values:
        return name
    mine = instance_settings.settings(spec.method, bench.project.recipe.attribution).values
    differs = [f"{key} {value}" for key, value in spec.values.items() if mine.get(key) != value]
    differs += [f"without {key}" for key in mine if key not in spec.values]
    return f"{name} ({', '.join(differs)})" if differs else name


# -- scores from files -------------------------------------------------------------------------------


def _imports(bench: Bench, out: Found) -> None:
    """The last file imported under each name."""
    weights = bench.found.full.outputs["weights"]
    newest = {
        str(record.params["name"]): record
        for record in bench.project.store.records("import")
        if record.inputs["full"] == weights
    }
    for name, record in newest.items():
        table = json.loads(bench.project.read(record, "scores"))
        columns = [what.name for what in bench.columns]
        rows = [[table.get(d, {}).get(column, np.nan) for column in columns] for d in bench.digests]
        scores = np.array(rows, dtype=np.float64)
        lacking = int(np.isnan(scores).any(axis=1).sum())
        if lacking:
            out.incomplete.append(f"{name}: {lacking} of {len(rows)} images lack the score of some group")
            continue
        centred = bench.maybe_centred(scores)
        out.rivals.append(Rival(name, IMPORTED, lambda _, found=centred: found, Cost()))  # type: ignore[misc]
