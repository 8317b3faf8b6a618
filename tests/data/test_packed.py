from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from guda_cli.data.sources import read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def _fails(spec: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(spec)
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


def _idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 0, 2, 2], np.uint8)


@pytest.fixture
def mnist(folder: Callable[..., Path]) -> Callable[..., Path]:
    def make(name: str = "mnist", *, packed: bool = True) -> Path:
        pack = gzip.compress if packed else bytes
        end = ".gz" if packed else ""
        return folder(
            {
                f"train-images-idx3-ubyte{end}": pack(_idx(IMAGES)),
                f"train-labels-idx1-ubyte{end}": pack(_idx(LABELS)),
                "t10k-images-idx3-ubyte": _idx(IMAGES[:2]),
                "t10k-labels-idx1-ubyte": _idx(LABELS[:2]),
            },
            name,
        )

    return make


@pytest.mark.parametrize("packed", [True, False])
def test_idx_folder(mnist: Callable[..., Path], packed: bool) -> None:
    ds = read_dataset(DataSpec(path=str(mnist(packed=packed)), size=28, channels=1))
    assert ds.counts() == {"class-0": 2, "class-1": 1, "class-2": 3}
    assert ds.names == ("class-0/1", "class-0/3", "class-1/2", "class-2/0", "class-2/4", "class-2/5")
    np.testing.assert_array_equal(ds.images[:, 0], IMAGES[[1, 3, 2, 0, 4, 5]])


def test_idx_prefix_file_resize_and_root(mnist: Callable[..., Path]) -> None:
    path = mnist("sets/raw")
    for where in ("t10k", "t10k-images-idx3-ubyte"):
        assert len(read_dataset(DataSpec(path=str(path / where), size=14))) == 2
    ds = read_dataset(DataSpec(path=str(path.parent), root="raw", source="idx", size=14, channels=3))
    assert ds.images.shape == (6, 3, 14, 14)
    exact = IMAGES[1].reshape(14, 2, 14, 2).mean(axis=(1, 3))
    assert np.abs(ds.images[0, 0] - exact).max() <= 0.5


def test_idx_class_names(mnist: Callable[..., Path]) -> None:
    spec = DataSpec(path=str(mnist("Fashion-MNIST")), size=28, channels=1)
    assert read_dataset(spec).groups == ("Pullover", "T-shirt/top", "Trouser")
    path = mnist("named")
    (path / "classes.txt").write_text("zero\none\n\ntwo\n")
    assert read_dataset(DataSpec(path=str(path), size=28, channels=1)).groups == ("one", "two", "zero")
    (path / "classes.txt").write_text("zero\none\n")
    assert "3 different class names" in _fails(DataSpec(path=str(path), size=28, channels=1))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (_idx(IMAGES)[:-1], _idx(LABELS), "its header promises"),
        (_idx(IMAGES) + b"x", _idx(LABELS), "its header promises"),
        (_idx(IMAGES[:3]), _idx(LABELS), "3 images"),
        (_idx(IMAGES[0]), _idx(LABELS), "does not begin as an IDX file"),
        (b"", _idx(LABELS), "does not begin as an IDX file"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, _idx(LABELS), "are more than"),
        (_idx(IMAGES[:0]), _idx(LABELS[:0]), "holds no images"),
    ],
)
def test_damaged_idx(folder: Callable[..., Path], images: bytes, labels: bytes, words: str) -> None:
    path = folder({"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels})
    assert words in _fails(DataSpec(path=str(path), size=28))


def test_damaged_gzip_and_absent_files(folder: Callable[..., Path], tmp_path: Path) -> None:
    whole = gzip.compress(_idx(IMAGES))
    for cut in (whole[:50], whole[:-4], b"no gzip"):
        path = folder({"train-images-idx3-ubyte.gz": cut, "train-labels-idx1-ubyte": _idx(LABELS)})
        assert "cannot read" in _fails(DataSpec(path=str(path)))
    assert "no IDX files" in _fails(DataSpec(path=str(tmp_path), source="idx"))


def test_packed_sources_have_no_columns(mnist: Callable[..., Path]) -> None:
    assert "no grouping style" in _fails(DataSpec(path=str(mnist()), group=("style",)))


def _cifar(n: int, heads: int = 1) -> bytes:
    rng = np.random.default_rng(n)
    records = rng.integers(0, 256, (n, heads + 3072), dtype=np.uint8)
    records[:, 0] = np.arange(n) % 2
    if heads == 2:
        records[:, 1] = np.arange(n) % 4
    return records.tobytes()


TEN = {
    "cifar-10-batches-bin/data_batch_1.bin": _cifar(4),
    "cifar-10-batches-bin/data_batch_2.bin": _cifar(3),
    "cifar-10-batches-bin/test_batch.bin": _cifar(9),
    "cifar-10-batches-bin/batches.meta.txt": b"airplane\nautomobile\n\n",
    "cifar-10-batches-bin/readme.html": b"",
}
HUNDRED = {
    "cifar-100-binary/train.bin": _cifar(8, 2),
    "cifar-100-binary/test.bin": _cifar(4, 2),
    "cifar-100-binary/fine_label_names.txt": b"a\nb\nc\nd\n",
    "cifar-100-binary/coarse_label_names.txt": b"x\ny\n",
}


def test_cifar_10_from_folder_and_archive(folder: Callable[..., Path], tar: Callable[..., Path]) -> None:
    where = folder(TEN, "plain")
    paths = (where, where / "cifar-10-batches-bin", tar(TEN), tar(TEN, "c.tar.gz"))
    digests = {read_dataset(DataSpec(path=str(path), size=32)).digest for path in paths}
    assert len(digests) == 1
    ds = read_dataset(DataSpec(path=str(where), source="cifar-binary", size=32))
    assert ds.counts() == {"airplane": 4, "automobile": 3}
    assert ds.names[:3] == ("airplane/0", "airplane/2", "airplane/4")
    first = np.frombuffer(_cifar(4), np.uint8)[1:3073].reshape(3, 32, 32)
    np.testing.assert_array_equal(ds.images[0], first)


def test_cifar_100_fine_and_coarse(tar: Callable[..., Path]) -> None:
    path = str(tar(HUNDRED, "c100.tar.gz"))
    assert read_dataset(DataSpec(path=path, size=16)).counts() == {"a": 2, "b": 2, "c": 2, "d": 2}
    assert read_dataset(DataSpec(path=path, size=16, group=("coarse",))).counts() == {"x": 4, "y": 4}


@pytest.mark.parametrize(
    "files",
    [
        {"cifar-10-batches-py/data_batch_1": b"\x80", "cifar-10-batches-py/batches.meta": b"\x80"},
        {
            "cifar-100-python/train": b"\x80",
            "cifar-100-python/test": b"\x80",
            "cifar-100-python/meta": b"\x80",
        },
    ],
)
@pytest.mark.parametrize("source", ["auto", "cifar-binary"])
def test_pickled_cifar_is_refused_with_the_alternative(
    tar: Callable[..., Path], folder: Callable[..., Path], files: dict[str, bytes], source: str
) -> None:
    for path in (tar(files), folder(files, "plain")):
        text = _fails(DataSpec(path=str(path), source=source))
        assert "pickle" in text
        assert "binary.tar.gz" in text


def test_damaged_cifar(folder: Callable[..., Path]) -> None:
    cut = {**TEN, "cifar-10-batches-bin/data_batch_2.bin": _cifar(3)[:-1]}
    assert "data_batch_2.bin is cut short" in _fails(DataSpec(path=str(folder(cut, "cut"))))
    meta = {name: data for name, data in TEN.items() if "meta" not in name}
    assert "no batches.meta.txt" in _fails(DataSpec(path=str(folder(meta, "meta"))))
    assert "no CIFAR binary files" in _fails(
        DataSpec(path=str(folder({"a.txt": b""}, "x")), source="cifar-binary")
    )


def test_digits_need_no_path() -> None:
    ds = read_dataset(DataSpec(source="digits", size=8, channels=1))
    assert ds.images.shape == (1797, 1, 8, 8)
    assert ds.images.max() == 255
    assert ds.groups == tuple(f"digit-{d}" for d in range(10))
    assert ds.names[0] == "digit-0/0000"
    assert ds.counts()["digit-3"] == 183
    ds = read_dataset(DataSpec(source="digits", size=16, channels=3, per_group=2))
    assert ds.images.shape == (20, 3, 16, 16)
    assert "no folders" in _fails(DataSpec(source="digits", root="train"))


def test_an_npz_is_nothing_images_are_read_from(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez(out, a=np.zeros(3))
    (tmp_path / "x.npz").write_bytes(out.getvalue())
    assert "accepted are" in _fails(DataSpec(path=str(tmp_path / "x.npz")))
