"""Where training images come from: folders, archives, IDX, CIFAR's binary release, built-in digits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from guda_cli import plugins
from guda_cli.data.sources.detect import format_of, locate
from guda_cli.data.sources.stamp import fingerprint
from guda_cli.sections import DataSpec

if TYPE_CHECKING:
    from pathlib import Path

    from guda_cli.data.dataset import Dataset
    from guda_cli.data.sources.tree import Tree

__all__ = ["fingerprint", "open_tree", "read_dataset"]


def read_dataset(spec: DataSpec, progress: Callable[[int, int | None], None] | None = None) -> Dataset:
    """Read, preprocess and group the images of `spec`; `progress(done, total)` is called now and then.

    With `spec.held_out` these are the training images; the others are the result's `held_out`. DataError,
    saying what to do, for anything that cannot be used.
    """
    from guda_cli.data.split import hold_out

    return hold_out(_read(spec, progress), spec.held_out)


def _read(spec: DataSpec, progress: Callable[[int, int | None], None] | None) -> Dataset:
    kind, path = locate(spec)
    if path is None:
        from guda_cli.data.sources.digits import read_digits

        return read_digits(spec, progress)
    own = format_of(kind)
    if own:
        found: Dataset = plugins.at(own.reader)(path, spec, progress)
        return found
    with closing(open_tree(kind, path)) as tree:
        return _read_tree(tree, spec, progress)


def open_tree(kind: str, path: Path) -> Tree:
    """The files of a folder or an archive; `kind` as `detect.locate` says."""
    if kind == "folder":
        from guda_cli.data.sources.folder import FolderTree

        return FolderTree(path)
    from guda_cli.data.sources.archive import open_archive
    from guda_cli.data.sources.file_sets import archives
    from guda_cli.data.sources.webdataset import ShardTree

    parts = archives(path)
    return open_archive(path) if parts == [path] else ShardTree(path, parts)


def _read_tree(tree: Tree, spec: DataSpec, progress: Callable[[int, int | None], None] | None) -> Dataset:
    """Image files, or CIFAR's batches when asked for or when that is what lies there."""
    from guda_cli.data.images import is_image
    from guda_cli.data.sources.cifar import cifar_kind, read_cifar, refuse_pickle
    from guda_cli.data.sources.imagefolder import read_tree

    if spec.source == "cifar-binary":
        return read_cifar(tree, spec, progress)
    kind = None if any(map(is_image, tree.files)) else cifar_kind(tree.files)
    if kind == "pickle":
        raise refuse_pickle(tree.where)
    if kind is not None and spec.source == "auto":
        return read_cifar(tree, spec, progress)
    return read_tree(tree, spec, progress)
