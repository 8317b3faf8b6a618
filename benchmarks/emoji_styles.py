"""Builds the emoji-styles data set: the same 1,299 things drawn in eleven styles, with prompts.

    pip install resvg_py==0.5.0
    python benchmarks/emoji_styles.py emoji-styles.tar

The drawings come from eleven public npm packages, fetched with `npm pack` by the npm at hand (or taken from
`--packages DIR`, where earlier runs left them), in the versions that emoji_styles.json names. An SVG is
rendered at 256x256 on white, averaged down to 64x64 and stored as a PNG of up to 256 colours.

The archive holds `<style>/<object>/<concept>.png`, `metadata.jsonl` (file_name, style, object, concept,
prompt) and `styles.json` (each style's descriptors, licence, author and source). Licences differ by style and
apply to what is built from it: they are printed at the end. `--compare TAR` says how far another archive of
this layout agrees. Nine minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TABLE = Path(__file__).with_suffix(".json")
SIZE, SUPERSAMPLING, COLOURS = 64, 4, 256
MOST_BYTES = 128 * 2**20  # of one file in a package
NEEDED = ("package/icons.json", "package/info.json", "package/package.json")


@dataclass(frozen=True)
class Package:
    """One npm package of icons in Iconify's JSON format."""

    icons: dict[str, Any]
    info: dict[str, Any]
    name: str
    version: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the emoji-styles data set from npm packages.")
    parser.add_argument("out", type=Path, help="archive to write, such as emoji-styles.tar")
    parser.add_argument("--packages", type=Path, help="folder for the packages (default: beside the archive)")
    parser.add_argument("--compare", type=Path, help="another archive of this layout to compare with")
    options = parser.parse_args()
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    folder = options.packages or options.out.parent / "emoji-packages"
    packages = {
        style: read_package(fetch(entry["package"], entry["version"], folder))
        for style, entry in table["styles"].items()
    }
    build(options.out, table, packages)
    for style, package in packages.items():
        print(f"{style}: {package.info['license']['spdx']}, {package.info['author']['name']}")
    if options.compare:
        print(json.dumps(compare(options.out, options.compare), indent=1))


# -- packages ------------------------------------------------------------------------------------------------


def fetch(name: str, version: str, folder: Path) -> Path:
    """The archive of an npm package in `folder`; `npm pack` brings it there and checks its digest."""
    path = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"npm pack {name}@{version}", file=sys.stderr)
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{name}@{version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def read_package(path: Path) -> Package:
    """The files we need of a package, read in place: nothing is unpacked, links are not followed."""
    found: dict[str, Any] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name not in NEEDED:
                continue
            if not member.isreg() or member.size > MOST_BYTES or member.name in found:
                raise SystemExit(f"{path}: {member.name} is no plain file of reasonable size")
            file = archive.extractfile(member)
            found[member.name] = json.loads(file.read() if file else b"null")
    if len(found) < len(NEEDED):
        raise SystemExit(f"{path} has no {', '.join(sorted(set(NEEDED) - set(found)))}")
    icons, info, package = (found[name] for name in NEEDED)
    return Package(icons, info, package["name"], package["version"])


# -- pictures ------------------------------------------------------------------------------------------------


def svg_of(icons: dict[str, Any], name: str) -> tuple[str, bool] | None:
    """The SVG text of icon `name` and whether it is to be mirrored; None where the set has no such icon.

    An alias names another icon; sizes not given at the icon are those of the set, else 16 (Iconify's JSON).
    """
    mirrored, aliases = False, icons.get("aliases", {})
    for _ in range(10):
        if name in icons["icons"] or name not in aliases:
            break
        if aliases[name].get("hidden"):
            return None
        mirrored ^= bool(aliases[name].get("hFlip"))
        name = aliases[name]["parent"]
    icon = icons["icons"].get(name)
    if icon is None or icon.get("hidden"):
        return None
    standard = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = " ".join(str(icon.get(key, icons.get(key, value))) for key, value in standard.items())
    side = SIZE * SUPERSAMPLING
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {spaces} width="{side}" height="{side}" viewBox="{box}" color="#000">'
    return f"{head}{icon['body']}</svg>", mirrored


def render(svg: str, mirrored: bool) -> Image.Image:
    """The drawing as RGB, SIZE pixels a side, on white."""
    import resvg_py

    side = SIZE * SUPERSAMPLING
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=side, height=side, background="#ffffff", skip_system_fonts=True
    )
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.reduce(SUPERSAMPLING)


def png_of(image: Image.Image) -> bytes:
    """A PNG with a palette: exact up to COLOURS colours, median cut without dithering beyond."""
    pixels = np.asarray(image)
    palette, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(palette) <= COLOURS:
        small = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8))
        small.putpalette(palette.astype(np.uint8).tobytes())
    else:
        cut = Image.Quantize.MEDIANCUT
        small = image.quantize(COLOURS, method=cut, kmeans=1, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


# -- the archive ---------------------------------------------------------------------------------------------


def rows(table: dict[str, Any], packages: dict[str, Package]) -> Iterator[tuple[dict[str, str], str]]:
    """The metadata row and the icon's name of every picture."""
    for style in sorted(packages):
        entry, icons = table["styles"][style], packages[style].icons
        for object_, concepts in sorted(table["objects"].items()):
            for concept in concepts:
                icon = entry["icons"].get(concept, concept)
                if concept in entry["left_out"] or svg_of(icons, icon) is None:
                    continue
                file_name = f"{style}/{object_}/{concept}.png"
                words = table["words"].get(concept, concept.replace("-", " "))
                text = prompt_of(file_name, words, entry["descriptors"])
                row = {"file_name": file_name, "style": style, "object": object_, "concept": concept}
                yield {**row, "prompt": text}, icon


def prompt_of(file_name: str, words: str, descriptors: list[str]) -> str:
    """The thing in words, and three of its style's descriptors drawn with a seed from the file's name."""
    seed = int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:8], "big")
    drawn = random.Random(seed).sample(descriptors, 3)
    return f"a {words} emoji, artistic style featuring {', '.join(drawn)}"


def build(out: Path, table: dict[str, Any], packages: dict[str, Package]) -> None:
    """Render everything and write the archive; a rerun writes the same bytes."""
    listed = sorted(rows(table, packages), key=lambda found: found[0]["file_name"])
    metadata = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row, _ in listed)
    styles = {
        style: {
            "descriptors": table["styles"][style]["descriptors"],
            "licence": package.info["license"]["spdx"],
            "licence_url": package.info["license"]["url"],
            "source": f"npm {package.name} {package.version}",
            "author": package.info["author"]["name"],
            "origin": package.info["author"]["url"],
        }
        for style, package in sorted(packages.items())
    }
    partial = out.with_name(out.name + ".partial")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, "styles.json", (json.dumps(styles, indent=1, ensure_ascii=False) + "\n").encode())
        add(archive, "metadata.jsonl", metadata.encode())
        for done, (row, icon) in enumerate(listed, 1):
            drawing = svg_of(packages[row["style"]].icons, icon)
            assert drawing is not None
            add(archive, row["file_name"], png_of(render(*drawing)))
            if done % 1000 == 0 or done == len(listed):
                print(f"{done} of {len(listed)} pictures", file=sys.stderr)
    partial.replace(out)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    archive.addfile(info, io.BytesIO(data))


def compare(one: Path, two: Path) -> dict[str, Any]:
    """How far two archives agree: names, prompts, styles, and pixels of the pictures both have."""
    with tarfile.open(one) as a, tarfile.open(two) as b:
        first, second = (
            {m.name: t.extractfile(m).read() for m in t if m.isreg()}  # type: ignore[union-attr]
            for t in (a, b)
        )
    both = sorted(name for name in first.keys() & second.keys() if name.endswith(".png"))
    apart = []
    for name in both:
        x, y = (np.asarray(Image.open(io.BytesIO(f[name])).convert("RGB"), int) for f in (first, second))
        apart.append(float(np.abs(x - y).mean()))
    lines = [set(files["metadata.jsonl"].decode().splitlines()) for files in (first, second)]
    return {
        "only in the first": sorted(first.keys() - second.keys())[:20],
        "only in the second": sorted(second.keys() - first.keys())[:20],
        "pictures in both": len(both),
        "of these with equal pixels": sum(value == 0 for value in apart),
        "greatest mean difference of a picture (of 255)": max(apart, default=0.0),
        "equal metadata rows": len(lines[0] & lines[1]),
        "equal styles.json": first["styles.json"] == second["styles.json"],
        "equal files": sum(first[name] == second.get(name) for name in first),
    }


if __name__ == "__main__":
    main()
