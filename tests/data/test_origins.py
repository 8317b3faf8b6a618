"""Origins that `guda sample` writes come back; nothing else is taken for one, and nothing raises."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from guda_cli.data.origins import PNG_KEY, Origin, parse, read_origin
from guda_cli.data.queries import load_query

ORIGIN = Origin(3, 7, "ddim", 50, 7.5, "ab" * 32)
PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def png(path: Path, **texts: str) -> Path:
    text = PngInfo()
    for name, value in texts.items():
        text.add_text(f"guda:{name}", value)
    Image.fromarray(PIXELS).save(path, "PNG", pnginfo=text)
    return path


@pytest.mark.parametrize(
    ("texts", "condition"),
    [
        ({}, None),
        ({"class": "naïve ☃"}, "naïve ☃"),
        ({"prompt": " a dog, two spaces  "}, " a dog, two spaces  "),
        ({"prompt": ""}, ""),
    ],
)
def test_round_trip_through_a_file(tmp_path: Path, texts: dict[str, str], condition: str | None) -> None:
    path = png(tmp_path / "a.png", sample=ORIGIN.text, **texts)
    assert read_origin(path) == replace(ORIGIN, condition=condition)
    query = load_query(str(path), 8, 1)
    assert query.origin == replace(ORIGIN, condition=condition)
    assert query.digest == load_query(str(png(tmp_path / "b.png")), 8, 1).digest


def test_numbers_at_the_ends_of_their_ranges() -> None:
    for origin in (
        replace(ORIGIN, index=0, seed=-5, steps=1, guidance=0.0),
        replace(ORIGIN, index=2**62, seed=2**62, sampler="ddpm"),
    ):
        assert parse(origin.text) == origin


def changed(**values: object) -> str:
    return json.dumps({**json.loads(ORIGIN.text), **values})


HOSTILE = {
    "nothing": "",
    "no JSON": "seed 3",
    "a list": "[1, 2]",
    "a number": "3",
    "deep": "[" * 900,
    "long": changed(sampler="ddim" + " " * 2000),
    "a huge number": '{"index": ' + "9" * 900 + "}",
    "a field more": changed(extra=1),
    "a field less": json.dumps({"index": 1, "seed": 1}),
    "a negative index": changed(index=-1),
    "an index that is text": changed(index="3"),
    "an index that is true": changed(index=True),
    "a fraction": changed(seed=1.5),
    "a seed beyond 63 bits": changed(seed=2**63),
    "no steps": changed(steps=0),
    "endless steps": changed(steps=10**9),
    "another sampler": changed(sampler="euler"),
    "a sampler that is a list": changed(sampler=["ddim"]),
    "guidance NaN": changed(guidance=float("nan")),
    "guidance infinite": changed(guidance=float("inf")),
    "guidance true": changed(guidance=True),
    "guidance null": changed(guidance=None),
    "a short digest": changed(model="ab"),
    "a path for a digest": changed(model="../" * 20 + "abcd"),
    "a digest and a line": changed(model="ab" * 32 + "\n"),
    "a digest that is a number": changed(model=5),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_name_no_origin(tmp_path: Path, text: str) -> None:
    assert parse(text) is None
    assert read_origin(png(tmp_path / "a.png", sample=text)) is None


def test_values_that_are_no_text_name_no_origin() -> None:
    for value in (None, 3, ["a"], b"{}", json.loads(ORIGIN.text)):
        assert parse(value) is None
    assert parse(ORIGIN.text, 3) is None
    assert parse(ORIGIN.text, "x" * 30_000) is None
    assert parse(ORIGIN.text, "\ud800") == replace(ORIGIN, condition="?")


def test_files_that_are_no_whole_png(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png", sample=ORIGIN.text).read_bytes()
    for size in (0, 10, 40, 60):
        (tmp_path / "cut.png").write_bytes(whole[:size])
        assert read_origin(tmp_path / "cut.png") is None
    assert read_origin(tmp_path / "missing.png") is None
    assert read_origin(tmp_path) is None
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    assert read_origin(tmp_path / "a.jpg") is None
    (tmp_path / "bent.png").write_bytes(whole.replace(b"guda:sample", b"guda:sampl\xff"))
    assert read_origin(tmp_path / "bent.png") is None


def test_the_text_entry_has_its_documented_name(tmp_path: Path) -> None:
    with Image.open(png(tmp_path / "a.png", sample=ORIGIN.text)) as image:
        assert image.info[PNG_KEY] == ORIGIN.text
        assert json.loads(image.info["guda:sample"])["index"] == 3


def test_an_origin_beside_a_long_text_is_found(tmp_path: Path) -> None:
    """Pillow refuses the whole file for a packed text of more than a megabyte."""
    image = png(tmp_path / "a.png", sample=ORIGIN.text)
    whole, packed = image.read_bytes(), b"workflow\0\0" + zlib.compress(bytes(1_500_000))
    part = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    at = whole.index(b"IDAT") - 4
    image.write_bytes(whole[:at] + part + whole[at:])
    assert read_origin(image) == ORIGIN
