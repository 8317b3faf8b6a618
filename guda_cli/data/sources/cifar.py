"""The binary release of CIFAR-10 and CIFAR-100, from its folder or its archive."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from guda_cli.data.dataset import Dataset, Progress
from guda_cli.data.sources.idx import read_class_names
from guda_cli.data.sources.names import clean_root
from guda_cli.data.sources.packed import check_group, from_arrays
from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec

_BATCH = re.compile(r"data_batch_\d+\.bin")
_PIXELS = 3 * 32 * 32


def cifar_kind(names: Iterable[str]) -> str | None:
    """ "cifar-10" or "cifar-100" for the names of the binary release, "pickle" for the Python one."""
    names = list(names)
    bases = {name.rpartition("/")[2] for name in names}
    if any(_BATCH.fullmatch(base) for base in bases):
        return "cifar-10"
    if {"train.bin", "fine_label_names.txt"} <= bases:
        return "cifar-100"
    if {"data_batch_1", "batches.meta"} <= bases or {"train", "test", "meta"} <= bases:
        return "pickle"
    return None


def refuse_pickle(where: str) -> DataError:
    """The error for the Python release of CIFAR."""
    return DataError(
        f"{where} is the Python version of CIFAR, which is pickled",
        why="reading a pickle runs whatever code it holds",
        fix="use the binary version (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz), read in place",
    )


def read_cifar(tree: Tree, spec: DataSpec, progress: Progress | None = None) -> Dataset:
    """The training images of the binary release in `tree`: 10 classes, or 100 (20 by `coarse`)."""
    root = clean_root(spec.root)
    prefix = root + "/" if root else ""
    names = sorted(name for name in tree.files if name.startswith(prefix))
    kind = cifar_kind(names)
    if kind == "pickle":
        raise refuse_pickle(tree.where)
    if kind is None:
        raise DataError(
            f"{tree.where} has no CIFAR binary files",
            why="data_batch_1.bin ... (CIFAR-10), or train.bin with fine_label_names.txt (CIFAR-100)",
        )
    hundred = kind == "cifar-100"
    asked = check_group(spec, kind, ("folder", "class", "fine", "coarse") if hundred else ("folder", "class"))
    coarse = asked == "coarse"
    heads = 2 if hundred else 1
    wanted = [n for n in names if _is_batch(n, hundred=hundred)]
    records = np.concatenate([_records(tree, name, heads) for name in wanted])
    labels = records[:, 0 if coarse or not hundred else 1]
    table = "batches.meta.txt" if not hundred else f"{'coarse' if coarse else 'fine'}_label_names.txt"
    classes = _classes(tree, names, table, int(labels.max()) + 1)
    pixels = records[:, heads:].reshape(-1, 3, 32, 32)
    return from_arrays(pixels, labels, classes, spec, progress)


def _is_batch(name: str, *, hundred: bool) -> bool:
    base = name.rpartition("/")[2]
    return base == "train.bin" if hundred else _BATCH.fullmatch(base) is not None


def _records(tree: Tree, name: str, heads: int) -> np.ndarray:
    """uint8 [n, heads + 3072] of one batch file."""
    data = tree.read(name)
    length = heads + _PIXELS
    if not data or len(data) % length:
        raise DataError(
            f"{tree.where}: {name} is cut short or no CIFAR batch",
            why=f"{len(data)} bytes are not a multiple of {length}",
            fix="fetch it again",
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, length)


def _classes(tree: Tree, names: list[str], table: str, count: int) -> list[str]:
    path = next((name for name in names if name.rpartition("/")[2] == table), None)
    if path is None:
        raise DataError(f"{tree.where} has no {table}", why="it holds the names of the classes")
    return read_class_names(tree.read(path), f"{tree.where}: {path}", count)
