from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from guda_cli.data.images import decode, is_image, pixels_digest, preprocess, to_float
from guda_cli.errors import DataError


def _bytes(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


square_rgb = st.integers(1, 9).flatmap(lambda n: arrays(np.uint8, (n, n, 3)))
any_rgb = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


@given(square_rgb)
def test_right_size_is_an_exact_identity(pixels: np.ndarray) -> None:
    out = preprocess(Image.fromarray(pixels), len(pixels), 3)
    np.testing.assert_array_equal(out, pixels.transpose(2, 0, 1))


@given(any_rgb, st.integers(1, 10), st.sampled_from([1, 3]))
def test_preprocess_is_idempotent_with_one_shape_and_type(
    pixels: np.ndarray, size: int, channels: int
) -> None:
    once = preprocess(Image.fromarray(pixels), size, channels)
    assert once.shape == (channels, size, size)
    assert once.dtype == np.uint8
    assert once.flags.c_contiguous
    again = preprocess(Image.fromarray(once[0] if channels == 1 else once.transpose(1, 2, 0)), size, channels)
    np.testing.assert_array_equal(once, again)


@given(st.integers(0, 255), st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_a_flat_image_stays_flat(value: int, width: int, height: int, size: int) -> None:
    out = preprocess(Image.new("L", (width, height), value), size, 3)
    assert (out == value).all()


def test_whole_factors_are_box_averages() -> None:
    pixels = np.array([[0, 10, 100, 100], [20, 30, 100, 100], [0, 0, 4, 8], [0, 0, 12, 16]], np.uint8)
    assert preprocess(Image.fromarray(pixels), 2, 1).tolist() == [[[15, 100], [0, 10]]]


def test_crop_takes_the_centre() -> None:
    pixels = np.tile(np.array([1, 2, 3, 4], np.uint8), (2, 1))
    assert preprocess(Image.fromarray(pixels), 2, 1).tolist() == [[[2, 3], [2, 3]]]
    assert preprocess(Image.fromarray(pixels.T.copy()), 2, 1).tolist() == [[[2, 2], [3, 3]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.arange(9, dtype=np.uint8).reshape(3, 3)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _bytes(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(decode(data, 3, 1, "x")[0], upright)


def test_transparency_is_composited_on_white() -> None:
    rgba = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    rgba.putpixel((0, 0), (200, 0, 0, 255))
    out = decode(_bytes(rgba), 2, 3, "x")
    assert out[:, 0, 0].tolist() == [200, 0, 0]
    assert out[:, 1, 1].tolist() == [255, 255, 255]
    la = Image.new("LA", (2, 2), (0, 0))
    assert (decode(_bytes(la), 2, 1, "x") == 255).all()


def test_palettes_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    assert decode(_bytes(palette), 2, 3, "x")[:, 0, 0].tolist() == [10, 20, 30]
    assert (decode(_bytes(palette, transparency=1), 2, 3, "x") == 255).all()
    assert (decode(_bytes(palette, transparency=bytes([255, 0])), 2, 3, "x") == 255).all()


def test_a_transparent_colour_of_an_rgb_png() -> None:
    data = _bytes(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert (decode(data, 2, 3, "x") == 255).all()


def test_sixteen_bits_keep_their_scale() -> None:
    values = np.array([[0, 257 * 100], [65535, 257 * 100 + 128]], np.uint16)
    data = _bytes(Image.fromarray(values))
    assert decode(data, 2, 1, "x").tolist() == [[[0, 100], [255, 100]]]
    assert decode(data, 2, 3, "x").shape == (3, 2, 2)


def test_cmyk_and_bilevel_and_luma() -> None:
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert decode(_bytes(cmyk, "TIFF"), 2, 3, "x")[:, 0, 0].tolist() == [255, 0, 0]
    assert (decode(_bytes(Image.new("1", (2, 2), 1)), 2, 3, "x") == 255).all()
    assert (decode(_bytes(Image.new("RGB", (2, 2), (255, 0, 0))), 2, 1, "x") == 76).all()


def test_animation_counts_by_its_first_frame() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    data = _bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data, 2, 1, "x") == 10).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_unknown_ranges_are_refused(mode: str) -> None:
    image = Image.new(mode, (2, 2), 70000)
    with pytest.raises(DataError) as caught:
        decode(_bytes(image, "TIFF"), 2, 1, "x.tif")
    assert "8 or 16 bits" in caught.value.why


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "no JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no JPEG"),
        (b"\x89PNG\r\n\x1a\n", ""),
    ],
)
def test_bad_files_are_named_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=r"cat/7\.png") as caught:
        decode(data, 4, 3, "cat/7.png")
    assert caught.value.why
    assert reason in caught.value.why


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"])
def test_truncated_files_are_refused(format: str) -> None:
    rng = np.random.default_rng(0)
    data = _bytes(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format)
    for cut in (len(data) // 2, len(data) // 4, 20):
        with pytest.raises(DataError):
            decode(data[:cut], 8, 3, "x")


@given(st.data())
def test_damage_never_raises_anything_but_data_error(data: st.DataObject) -> None:
    raw = bytearray(
        _bytes(Image.new("RGB", (9, 9), (1, 2, 3)), data.draw(st.sampled_from(["PNG", "JPEG", "GIF"])))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = decode(bytes(raw), 4, 3, "x", max_pixels=1 << 20)
    except DataError:
        return
    assert out.shape == (3, 4, 4)


def test_decompression_bombs_are_refused_by_their_header() -> None:
    small = bytearray(_bytes(Image.new("L", (2, 2))))
    import zlib

    small[16:24] = (20000).to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError) as caught:
        decode(bytes(small), 4, 3, "bomb.png")
    assert "pixels" in caught.value.why
    with pytest.raises(DataError, match="one"):
        decode(_bytes(Image.new("L", (9, 9))), 4, 3, "one", max_pixels=80)


def test_missing_path_and_reading_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_bytes(Image.new("L", (2, 2), 7)))
    assert (decode(tmp_path / "a.png", 2, 1, "a.png") == 7).all()
    with pytest.raises(DataError, match=r"b\.png"):
        decode(tmp_path / "b.png", 2, 1, "b.png")


def test_to_float_spans_minus_one_to_one() -> None:
    pixels = np.array([0, 51, 255], np.uint8)
    out = to_float(pixels)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [-1, -0.6, 1], atol=1e-7)
    assert pixels.tolist() == [0, 51, 255]


def test_pixels_digest_sees_shape_and_values_only() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    assert pixels_digest(pixels) == pixels_digest(np.asfortranarray(pixels))
    assert pixels_digest(pixels) != pixels_digest(pixels.reshape(1, 6, 2))
    assert pixels_digest(pixels) != pixels_digest(pixels + np.uint8(1))
    with pytest.raises(TypeError):
        pixels_digest(pixels.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.PNG", True), ("d/b.jpeg", True), ("a.txt", False), ("png", False), (".png", False)],
)
def test_is_image(name: str, expected: bool) -> None:
    assert is_image(name) is expected
