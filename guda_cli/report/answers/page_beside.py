"""What was asked for beside an image's answer: training images of its groups, and maps."""

from __future__ import annotations

import numpy as np

from guda_cli.report.answers.content import GroupImages, Map, Pixels, QueryResult, ReportModel
from guda_cli.report.answers.maps import overlay, shared_limit
from guda_cli.report.pieces.markup import clipped, esc, picture
from guda_cli.report.pieces.text import significant

_TRAINING = 96  # pixels a side: enlarged they are still recognised, and many of them stay small
_MAP = 256


def training_of(report: ReportModel, query: QueryResult) -> str:
    """The training images of each named group in a row of their own."""
    rows = report.training.of.get(query.digest, ()) if report.training else ()
    return "".join(_strip(f"Training images of {one.group}, nearest first", _shown(one)) for one in rows)


def _shown(one: GroupImages) -> list[tuple[str, str]]:
    return [
        (picture(pixels, f"training image {name} of {one.group}", most=_TRAINING, css="beside"), name)
        for name, pixels in one.pictures
    ]


def maps_of(report: ReportModel, query: QueryResult) -> str:
    """The maps of an image's highest groups, with one colour scale."""
    found = report.maps.of.get(query.digest, ()) if report.maps else ()
    if not found or query.pixels is None:
        return ""
    limit = shared_limit([value for _, value in found])
    items = []
    for group, value in found:
        drawn, alt = _drawn(query.pixels, value, limit), f"map of {group} over {query.name}"
        items.append((picture(drawn, alt, most=_MAP, css="map"), group))
    return _strip(f"Maps, full colour at ±{significant(limit)} a pixel", items)


def _drawn(pixels: Pixels, value: Map, limit: float) -> Pixels:
    return np.asarray(overlay(pixels, value, limit=limit, scale=1)).transpose(2, 0, 1)


def _strip(head: str, items: list[tuple[str, str]]) -> str:
    shown = "".join(f"<li>{image}<span>{clipped(name, 24)}</span></li>" for image, name in items)
    return f'<p class="muted small">{esc(head)}</p><ul class="instances">{shown}</ul>'
