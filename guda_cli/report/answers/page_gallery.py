"""The page's counterfactual gallery: each image beside what models draw that never saw one of its groups."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.report.answers import words
from guda_cli.report.answers.content import Counterpart, GalleryRow, Pixels, ReportModel
from guda_cli.report.pieces.markup import Column, clipped, esc, picture, scrolling, table
from guda_cli.report.pieces.skeleton import behind
from guda_cli.report.pieces.text import Scale, number, scale_for, shorten

GALLERY_CSS = """
.gallery-row{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;
margin:.9rem 0}
.gallery-row h3{font-weight:600}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(11.5rem,40%),1fr));gap:.9rem;
list-style:none;margin:.6rem 0 0;padding:0}
.pictures li{display:flex;flex-direction:column;font-size:.85rem;line-height:1.35;min-width:0}
img.drawn{width:100%;height:auto;aspect-ratio:1;border-radius:4px;margin-bottom:.4rem}
@media print{.gallery-row{break-inside:avoid}.pictures{grid-template-columns:repeat(5,1fr)}}
"""
_MOST = 384  # pixels a side: sharp at 192 CSS pixels on a dense screen

_HOW = {
    "guda": "a model from which one group was unlearned, an estimate of one that has never seen it",
    "logo": "a model that was trained again without one group",
}
_ORACLE = (
    " A model trained again differs from the full one in more than the group: its pictures also change where "
    "the group did not matter."
)


def gallery_section(report: ReportModel) -> str:
    """A row an image: the image, then the pictures without its highest groups; empty without a gallery."""
    if report.gallery is None:
        return ""
    notes = "".join(f'<p class="muted small">{esc(_sentence(note))}</p>' for note in report.gallery.notes)
    if not report.gallery.rows:
        return f"<p>There is nothing to show.</p>{notes}"
    intro = (
        "Beside each image: the picture that the same noise and settings give with "
        f"{_HOW.get(report.method, 'a model that knows one group less')}. "
        "“differs by” is the mean absolute difference of the pixels to the full model's picture, "
        "of levels from 0 to 255." + (_ORACLE if report.method == "logo" else "")
    )
    return f"<p>{esc(intro)}</p>{''.join(_row(row) for row in report.gallery.rows)}{notes}"


def regeneration_section(report: ReportModel) -> str:
    """How much pictures change without their highest groups, beside others; empty where not asked for."""
    found = report.regeneration
    if found is None:
        return ""
    notes = "".join(f'<p class="muted small">{esc(_sentence(note))}</p>' for note in found.notes)
    columns = [Column("Change"), *(Column(head.capitalize(), True) for head in words.REGENERATION_HEADS)]
    rows = [[esc(cell) for cell in words.regeneration_cells(change)] for change in found.changes]
    shown = scrolling(table("Mean over the images", columns, rows), "Mean over the images") if rows else ""
    return f"<p>{esc(words.regeneration_line(found))}</p>{shown}{notes}"


def _row(row: GalleryRow) -> str:
    scale = scale_for([one.score for one in row.counterparts])
    own = ["<strong>the image</strong>", "drawn again: same" if row.same else ""]
    cells = [_cell(row.pixels, f"image {row.image}", own)]
    if not row.same:
        off = f"differs by {_level(row.difference)} from the image" if row.redrawn else ""
        lines = ["the full model", esc(off)]
        cells.append(_cell(row.drawn, f"the full model's drawing for {row.image}", lines))
    cells += [_without(row, one, scale) for one in row.counterparts]
    told = "" if row.condition is None else f'<div class="small">{behind(f"“{row.condition}”", 160)}</div>'
    return (
        f'<article class="gallery-row"><h3>{clipped(row.image, 80)}</h3>{told}{_remark(row)}'
        f'<ul class="pictures">{"".join(cells)}</ul></article>'
    )


def _remark(row: GalleryRow) -> str:
    """What a reader must know where the full model's picture is not the image."""
    if row.same:
        return ""
    if row.redrawn:
        text = (
            "The full model does not draw this image again: the file was changed, or this machine rounds "
            "otherwise. The pictures without a group are to be compared with its drawing of today."
        )
    else:
        text = (
            "The current full model is not known to have drawn this image. These are pictures of the same "
            "prompt or class, all from one noise; not this image."
        )
    return f'<p class="muted small">{esc(text)}</p>'


def _without(row: GalleryRow, one: Counterpart, scale: Scale) -> str:
    score = f"{scale.show(one.score, sign=True)} {scale.label}".rstrip()
    lines = [
        f'without <strong title="{esc(one.group)}">{esc(shorten(one.group, 40))}</strong>',
        esc(f"rank {one.rank}, score {score}"),
        esc(f"differs by {_level(one.difference)}"),
    ]
    return _cell(one.pixels, f"drawing for {row.image} by the model without {one.group}", lines)


def _cell(pixels: Pixels, alt: str, lines: Sequence[str]) -> str:
    shown = picture(pixels, alt, most=_MOST, css="drawn")
    text = "".join(f"<span>{line}</span>" for line in lines if line)
    return f"<li>{shown}{text}</li>"


def _level(value: float) -> str:
    return number(value, 1 if value >= 1 else 2)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
