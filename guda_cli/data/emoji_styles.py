"""Builds the emoji-styles data set: the same 1,299 things drawn in eleven styles, with prompts.

The drawings come from eleven npm packages, in the versions and with the digests that emoji_styles.json
names. An SVG is rendered at 256x256 on white, averaged down to 64x64, and stored as a PNG of up to 256
colours.

The archive holds `<style>/<object>/<concept>.png`, `metadata.jsonl` (file_name, style, object, concept,
prompt) and `styles.json` (each style's descriptors, licence, author and source). Licences differ by style and
apply to what is built from it. The same versions of resvg_py and Pillow write the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from guda_cli.data.known_sets import archive_name, emoji_table
from guda_cli.errors import DataError, MissingError

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


def check_renderer() -> None:
    """MissingError unless what renders SVG is installed."""
    if importlib.util.find_spec("resvg_py") is None:
        raise MissingError("emoji-styles is drawn by the package resvg_py", fix="pip install 'guda[emoji]'")


def make(out: Path, packages: Path, progress: Callable[[int, int | None], None] | None = None) -> list[str]:
    """Build the archive at `out` from the packages in a folder; a line a style with its licence."""
    check_renderer()
    found, listed = emoji_table(), {}
    for style, entry in found["styles"].items():
        listed[style] = read_package(packages / archive_name(entry["package"], entry["version"]))
    build(out, found, listed, progress)
    return [
        f"{style}: {package.info['license']['spdx']}, {package.info['author']['name']}"
        for style, package in listed.items()
    ]


def read_package(path: Path) -> Package:
    """The files we need of a package, read in place: nothing is unpacked, links are not followed."""
    found: dict[str, Any] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name not in NEEDED:
                continue
            if not member.isreg() or member.size > MOST_BYTES or member.name in found:
                raise DataError(f"{path}: {member.name} is no plain file of reasonable size")
            file = archive.extractfile(member)
            found[member.name] = json.loads(file.read() if file else b"null")
    if len(found) < len(NEEDED):
        raise DataError(f"{path} has no {', '.join(sorted(set(NEEDED) - set(found)))}")
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


def rows(table: Mapping[str, Any], packages: dict[str, Package]) -> Iterator[tuple[dict[str, str], str]]:
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


def build(
    out: Path,
    table: Mapping[str, Any],
    packages: dict[str, Package],
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
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
    partial = out.with_name(f".{out.name}.part")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, "styles.json", (json.dumps(styles, indent=1, ensure_ascii=False) + "\n").encode())
        add(archive, "metadata.jsonl", metadata.encode())
        for done, (row, icon) in enumerate(listed, 1):
            drawing = svg_of(packages[row["style"]].icons, icon)
            assert drawing is not None
            add(archive, row["file_name"], png_of(render(*drawing)))
            if progress is not None:
                progress(done, len(listed))
    partial.replace(out)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """One more member, with nothing of this machine in it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    archive.addfile(info, io.BytesIO(data))
