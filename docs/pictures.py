"""The README's pictures, made from the main job's store and from the pages of results.

    guda run && python docs/pictures.py        writes docs/pictures/*.png

Needs a Chromium and `playwright`. A card and a row of the gallery are cut out of the page that `guda report` writes;
the plot is of the columns `corr:true` of the results.
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
LARGEST = 300_000  # bytes of a picture


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        report = Path(folder) / "report.html"
        subprocess.run(
            [sys.executable, "-m", "guda_cli", "report", "--html", report, "--gallery"], check=True
        )
        browser = play.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 900, "height": 900}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        cut(page, ".card:has(.answer:text-matches('^Stands out'))", "card.png")
        cut(page, ".gallery-row", "gallery.png")
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


def plot() -> str:
    """Methods below each other, a dot a data set."""
    step, left, width, top = 30, 230, 560, 62
    height = top + step * len(SHOWN) + 56
    x = lambda value: left + max(0.0, min(1.0, value)) * width  # noqa: E731
    colours = {"digits": "#1f5fa8", "fashion-mnist": "#c4611a"}
    parts = [
        '<text x="16" y="24" font-size="16" font-weight="600">How well scores go with what retraining says'
        "</text>"
    ]
    for i, (name, title) in enumerate(SETS.items()):
        at = left + i * 130
        parts += [f'<circle cx="{at}" cy="44" r="5" fill="{colours[name]}"/>',
                  f'<text x="{at + 12}" y="49">{title}</text>']  # fmt: skip
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts += [f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{top}" y2="{height - 52}" stroke="#ddd"/>',
                  f'<text x="{x(tick)}" y="{height - 34}" text-anchor="middle" fill="#555">{tick:g}</text>']  # fmt: skip
    parts.append(
        f'<text x="{x(0.5)}" y="{height - 10}" text-anchor="middle" fill="#555">correlation with the mean of two '
        "retrainings, corrected for their noise; 95 % intervals</text>"
    )
    values = {name: measured(name) for name in SETS}
    for row, (method, title) in enumerate(SHOWN.items()):
        y = top + step * (row + 0.5)
        bold = ' font-weight="700"' if title == "guda" else ""
        parts.append(f'<text x="{left - 14}" y="{y + 5}" text-anchor="end"{bold}>{title}</text>')
        for i, name in enumerate(SETS):
            if method not in values[name]:
                continue
            value, half = values[name][method]
            at = y - 4 + 8 * i
            parts += [
                f'<line x1="{x(value - half)}" x2="{x(value + half)}" y1="{at}" y2="{at}" stroke="{colours[name]}"/>',
                f'<circle cx="{x(value)}" cy="{at}" r="5" fill="{colours[name]}"/>',
            ]
    style = "font-family: system-ui, sans-serif; font-size: 14px; background: #fff"
    return f'<svg width="840" height="{height}" style="{style}">{"".join(parts)}</svg>'


if __name__ == "__main__":
    main()
