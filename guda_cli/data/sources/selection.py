"""Which images of a source take part: `DataSpec.common`, `groups` and `per_group`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from guda_cli.data.sources.names import composed
from guda_cli.data.split import taken
from guda_cli.errors import DataError, unknown
from guda_cli.phrases import plural
from guda_cli.sections import DataSpec


def keep_common(
    labels: Mapping[str, frozenset[str]], values: Mapping[str, Sequence[str]], column: str, notes: list[str]
) -> dict[str, frozenset[str]]:
    """The part of name -> groups whose `values` (of metadata `column`) occur in every group.

    So all groups carry the same content. An image with several values stays when one of them is common, one
    without a value goes. DataError when nothing is left.
    """
    groups: dict[str, set[str]] = {}
    for name, held in labels.items():
        for group in held:
            groups.setdefault(group, set()).update(values[name])
    spread = Counter(value for found in groups.values() for value in found)
    kept = {n: held for n, held in labels.items() if any(spread[v] == len(groups) for v in values[n])}
    if not kept:
        most = min(spread, key=lambda value: (-spread[value], value), default=None)
        so = f"; the most widespread, '{most}', is in {spread[most]}" if most is not None else ""
        raise DataError(
            f"data.common: no value of '{column}' occurs in every group",
            why=f"there are {len(groups)} groups{so}",
            fix="name another column, move small groups away, or --set data.common=null",
        )
    if len(kept) < len(labels):
        left = plural(len(labels) - len(kept), "image was", "images were")
        notes.append(f"{left} left out: their {column} is not in every group (data.common)")
    return kept


def select(
    labels: Mapping[str, frozenset[str]], spec: DataSpec, notes: list[str]
) -> dict[str, frozenset[str]]:
    """The chosen part of name -> groups, sorted by name.

    With `per_group` the first n by name of every group are taken, and as many more as `held_out` keeps from
    training; an image taken for one of its groups counts in all of them. DataError for an unknown group, or
    when fewer than two are left.
    """
    chosen = _keep_groups(labels, spec.groups)
    if spec.per_group is not None:
        chosen = _first(chosen, taken(spec.per_group, spec.held_out), notes)
    groups = sorted({g for held in chosen.values() for g in held})
    if len(groups) < 2:
        raise DataError(
            f"the data have only one group, '{groups[0]}'" if groups else "the data have no group",
            why="attribution compares groups with each other, so it needs two at least",
            fix="set data.groups, data.group or data.root so that several groups are left",
        )
    return chosen


def _keep_groups(labels: Mapping[str, frozenset[str]], keep: tuple[str, ...]) -> dict[str, frozenset[str]]:
    known = sorted({g for held in labels.values() for g in held})
    named = [composed(group) for group in keep]
    for group in named:
        if group not in known:
            raise DataError("data.groups: " + unknown("group", group, known))
    wanted = frozenset(named or known)
    return {name: labels[name] & wanted for name in sorted(labels) if labels[name] & wanted}


def _first(labels: dict[str, frozenset[str]], n: int, notes: list[str]) -> dict[str, frozenset[str]]:
    counts: dict[str, int] = {}
    chosen: dict[str, frozenset[str]] = {}
    for name, held in labels.items():
        if any(counts.get(g, 0) < n for g in held):
            chosen[name] = held
            for g in held:
                counts[g] = counts.get(g, 0) + 1
    over = sum(count > n for count in counts.values())
    if over:
        notes.append(
            plural(over, "group has", "groups have") + f" more than {n} images: some are in several groups"
        )
    return chosen
