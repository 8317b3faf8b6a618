"""The README's pictures, made from the main job's store and from the pages of results.

    guda run && python docs/pictures.py        writes docs/pictures/*.png

Needs a Chromium and `playwright`. A card and a row of the gallery are cut out of the page that `guda report`
writes; the plot is of the columns `corr:true` of the results.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
OUT = HERE / "pictures"
SETS = {"digits": "digits", "fashion-mnist": "clothes (Fashion-MNIST)"}
SHOWN = {
    "ceiling (LOGO, other seed)": "retraining again, another seed",
    "guda (retrack)": "guda",
    "das": "das",
    "nda": "nda",
    "d-trak": "d-trak",
    "similarity (pixels)": "pixel similarity",
    "unlearn-query": "unlearn-query",
    "mucs": "mucs",
    "trak": "trak",
    "ekfac": "ekfac",
}
IMAGE = "00004.png"  # the README's example
LARGEST = 300_000  # bytes of a picture


def main() -> None:
    """All pictures."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        report = Path(folder) / "report.html"
        subprocess.run(
            [sys.executable, "-m", "guda_cli", "report", "--html", report, "--gallery"], check=True
        )
        browser = play.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 900, "height": 900}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        cut(page, f".card:has-text('{IMAGE}')", "card.png")
        cut(page, f".gallery-row:has-text('{IMAGE}')", "gallery.png")
        page = browser.new_page(viewport={"width": 900, "height": 900}, device_scale_factor=1.5)
        page.set_content(plot())
        cut(page, "svg", "agreement.png")
        browser.close()


def cut(page: Page, selector: str, name: str) -> None:
    """A picture of the first element that `selector` finds."""
    path = OUT / name
    page.locator(selector).first.screenshot(path=path)
    size = path.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{path} has {size} bytes, more than {LARGEST}")
    print(f"{path.relative_to(HERE.parent)}  {size:,} bytes")


# -- the plot --------------------------------------------------------------------------------------


def measured(name: str) -> dict[str, tuple[float, float]]:
    """Correlation with retraining, corrected for its noise, and half its interval, by method."""
    found: dict[str, tuple[float, float]] = {}
    text = (HERE / "results" / f"{name}.md").read_text(encoding="utf-8")
    table = text.partition("## min-snr:5")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    column = rows[0].index("corr:true")
    for row in rows[2:]:
        value, _, half = row[column].partition(" ± ")
        if row[0] in SHOWN and row[0] not in found:
            found[row[0]] = float(value), float(half or 0)
    return found


def text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    """A piece of the drawing."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {more}>{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """A piece of the drawing."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}"/>'


def dot(x: float, y: float, colour: str) -> str:
    """A piece of the drawing."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="5" fill="{colour}"/>'


def plot() -> str:
    """Methods below each other, a dot a data set."""
    step, left, width, top = 30, 240, 550, 62
    bottom = top + step * len(SHOWN) + 4
    colours = {"digits": "#1f5fa8", "fashion-mnist": "#c4611a"}
    grey = 'fill="#555"'

    def at(value: float) -> float:
        return left + max(0.0, min(1.0, value)) * width

    title = "How well scores go with what retraining says"
    parts = [text(16, 24, title, more='font-size="16" font-weight="600"')]
    for i, (name, title) in enumerate(SETS.items()):
        parts += [dot(left + i * 130, 44, colours[name]), text(left + 12 + i * 130, 49, title)]
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(line(at(tick), top, at(tick), bottom, "#ddd"))
        parts.append(text(at(tick), bottom + 18, f"{tick:g}", "middle", grey))
    caption = "correlation with the mean of two retrainings, corrected for their noise; 95 % intervals"
    parts.append(text(at(0.5), bottom + 42, caption, "middle", grey))
    values = {name: measured(name) for name in SETS}
    for row, (method, title) in enumerate(SHOWN.items()):
        y = top + step * (row + 0.5)
        parts.append(text(left - 14, y + 5, title, "end", 'font-weight="700"' if title == "guda" else ""))
        for i, name in enumerate(SETS):
            value, half = values[name][method]
            height = y - 4 + 8 * i
            parts.append(line(at(value - half), height, at(value + half), height, colours[name]))
            parts.append(dot(at(value), height, colours[name]))
    style = "font-family: system-ui, sans-serif; font-size: 14px; background: #fff"
    return f'<svg width="840" height="{bottom + 56}" style="{style}">{"".join(parts)}</svg>'


if __name__ == "__main__":
    main()
