"""The page of a large report: its size, and in Chromium how long it takes to load, sort, search and unfold.

    python benchmarks/page.py --images 2000 --groups 300 --side 32

Images and scores are random. Without a browser only the size is measured.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from guda_cli.report.answers import page
from guda_cli.report.answers.content import Check, GroupScore, QueryResult, ReportModel, summarise

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Does one thing, and says after how many milliseconds it was drawn: the frame after the next begins then.
TIMED = """([kind, where, value]) => new Promise((done) => {
  const found = document.querySelector(where);
  const started = performance.now();
  const frame = (next) => requestAnimationFrame(next);
  if (kind === "click") found.click();
  else if (kind === "set") {
    found.value = value;
    found.dispatchEvent(new Event("input"));
  }
  frame(() => frame(() => done(performance.now() - started)));
})"""
LOADED = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
STEPS = {
    "search": ("set", "[name=q]", "00123"),
    "search nothing": ("set", "[name=q]", ""),
    "sort by z": ("set", "[name=sort]", "z-"),
    "filter by group": ("set", "[name=group]", "group-007"),
    "all groups again": ("set", "[name=group]", ""),
    "unfold the images": ("click", "details.others > summary", ""),
    "search in the unfolded": ("set", "[name=q]", "0012"),
    "sort a matrix of 20": ("click", "#matrix .heat thead button", ""),
    "unfold the matrix of all": ("click", "#matrix summary", ""),
    "sort the matrix of all": ("click", "#matrix details thead button", ""),
    "all its rows": ("click", "#matrix details .fold > button", ""),
    "sort the checks": ("click", "#checks thead button", ""),
}


def model(images: int, groups: int, side: int, channels: int = 3) -> ReportModel:
    """A report of so many random images of ``side`` pixels."""
    rng = np.random.default_rng(0)
    names = tuple(f"group-{i:03d}" for i in range(groups))
    queries = tuple(_image(i, names, rng, side, channels) for i in range(images))
    return ReportModel(
        title="A large report", recipe_name="large", recipe_yaml="name: large\n", method="guda",
        weighting="min-snr:5", weighting_unit="weighted squared error", grid="strata", timesteps=25, draws=2,
        seed=0, created="2026-01-01", groups=names, group_sizes=dict.fromkeys(names, 50), queries=queries,
        checks=tuple(_check(name, i % 75 == 3) for i, name in enumerate(names)),
        null={"wrong_group": 0.04, "own_group": 0.9, "unlike": 0.01, "level": 0.05, "description": "200"},
        **summarise(queries, names)._asdict(),
    )  # fmt: skip


def _image(i: int, names: tuple[str, ...], rng: np.random.Generator, side: int, channels: int) -> QueryResult:
    scores = rng.normal(0, 100, len(names))
    own = int(rng.integers(len(names)))
    scores[own] += 800
    order = np.argsort(-scores, kind="stable")
    entries = tuple(
        GroupScore(
            names[j], s := float(scores[j]), 30.0, s - 60, s + 60, s / 100, 0.1, j == own and i % 3 > 0
        )
        for j in order
    )
    blocks = rng.integers(0, 256, (channels, 8, 8)).repeat(-(-side // 8), 1).repeat(-(-side // 8), 2)
    pixels = blocks[:, :side, :side] + rng.integers(-20, 20, (channels, side, side))
    return QueryResult(
        f"samples/{i:05d}.png", f"{i:064x}", names[own], pixels.clip(0, 255).astype(np.uint8), entries,
        tuple(e.group for e in entries if e.stands_out), unlike=i % 50 == 9 or None,
    )  # fmt: skip


def _check(group: str, failed: bool) -> Check:
    return Check(group, 0.05, 0.05 if failed else 0.07, 0.04, 0.041, not failed, "no rise" if failed else "")


def measured(file: Path) -> Iterator[tuple[str, float]]:
    """What is done in the browser and how many milliseconds until it is drawn; nothing without a browser."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return
    with sync_playwright() as tools, tools.chromium.launch(executable_path=browser) as chromium:
        tab = chromium.new_page(viewport={"width": 1200, "height": 900})
        tab.set_default_timeout(300_000)
        tab.goto(file.as_uri())
        yield "load", tab.evaluate(LOADED)
        for name, step in STEPS.items():
            if tab.locator(step[1]).count():
                yield name, tab.evaluate(TIMED, list(step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--keep", type=Path, help="where the page is left")
    asked = parser.parse_args()
    report = model(asked.images, asked.groups, asked.side)
    started = time.perf_counter()
    text = page.render(report)
    seconds = time.perf_counter() - started
    size = len(text.encode())
    print(f"{asked.images:,} images, {asked.groups} groups, {asked.side} x {asked.side} pixels")
    print(f"{size / 1e6:.1f} MB, {size / 1000 / asked.images:.1f} kB an image, written in {seconds:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        file = (asked.keep or Path(folder) / "page.html").absolute()
        file.write_text(text, encoding="utf-8")
        for name, milliseconds in measured(file):
            print(f"{name:<26}{milliseconds:8,.0f} ms")


if __name__ == "__main__":
    main()
