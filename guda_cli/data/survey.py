"""A look at somebody's folder or archive of images before anything is trained on it."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Dataset, Progress
from guda_cli.data.images import header, is_image, pixels_digests, small
from guda_cli.data.sources import open_tree, read_dataset
from guda_cli.data.sources.detect import idx_files, locate
from guda_cli.data.sources.idx import read_array
from guda_cli.data.sources.metadata import read_metadata
from guda_cli.data.sources.names import conflict_copies
from guda_cli.data.sources.rows import PROMPT_COLUMNS
from guda_cli.data.sources.tree import Tree
from guda_cli.data.sources.webdataset import add_samples, sample_files
from guda_cli.errors import DataError
from guda_cli.phrases import few, plural
from guda_cli.sections import DataSpec

LOOKED_AT = 32  # pixels a side that images are compared at
HEADERS = 1000  # files whose size and format are looked at, at most
COMPARED = 20_000  # images beyond which only equal hashes count as alike
NEAR = 4  # bits of 64 in which perceptual hashes of near duplicates differ, at most
APART = 8.0  # grey levels that their small copies differ by on average, at most
CIFAR = 32  # pixels a side
GREY = 2  # levels between channels up to which an image is grey
TRAINING = ("train", "training", "trainset")
PARTS = {*TRAINING, "test", "testing", "val", "valid", "validation", "dev", "eval"}
MODELS = ("model_index.json", "unet/config.json")
MOST_VALUES = 500  # of a metadata column that may name groups

Pair = tuple[str, str]


@dataclass(frozen=True)
class Survey:
    """What lies there. Sizes are of the shorter side, in pixels."""

    spec: DataSpec
    """How it is read: source, path, root and group."""
    counts: Mapping[str, int]
    images: int
    smallest: int
    median: int
    largest: int
    formats: Mapping[str, int]
    grey: bool
    prompts: int
    """Images with a prompt in the metadata."""
    columns: tuple[str, ...]
    """Metadata columns that could name groups, the likeliest first."""
    same: tuple[Pair, ...] = ()
    """Images whose pixels are those of another one of the same group, with that."""
    same_across: tuple[Pair, ...] = ()
    """... of another group."""
    near: tuple[Pair, ...] = ()
    """Nearly the same, likewise."""
    near_across: tuple[Pair, ...] = ()
    models: tuple[str, ...] = ()
    """What looks like a model in the folder or beside it."""
    notes: tuple[str, ...] = field(default=())


def survey(path: str, group: Sequence[str] = (), progress: Progress | None = None) -> Survey:
    """Look at the images at `path`, grouped as they lie or by the metadata columns `group`.

    DataError, saying what to do, where there are no images or no two groups.
    """
    spec, columns = _arranged(DataSpec(path=path, size=LOOKED_AT, channels=3), tuple(group))
    data = read_dataset(spec, progress)
    sides, formats = _headers(spec, data)
    middle = sorted(sides)[len(sides) // 2]
    return Survey(
        spec, data.counts(), len(data), min(sides), middle, max(sides), formats, _grey(data),
        sum(bool(prompt) for prompt in data.prompts), columns, **_alike(data), models=_models(Path(path)),
        notes=data.notes,
    )  # fmt: skip


def _arranged(spec: DataSpec, group: tuple[str, ...]) -> tuple[DataSpec, tuple[str, ...]]:
    """`spec` with the folder that counts as the top and what names the groups; and metadata columns."""
    kind, path = locate(spec)
    if path is None or kind not in ("folder", "archive"):
        return spec, ()
    with closing(open_tree(kind, path)) as tree:
        names = [name for name in tree.files if is_image(name)]
        if not names:
            if not tree.files:
                raise DataError(f"{tree.where} is empty", fix="name the folder of the images")
            return spec, ()  # CIFAR's batches, or nothing: the reader says so
        root = _top(names)
        prefix = root + "/" if root else ""
        copies = set(conflict_copies(names))
        below = [name for name in names if name.startswith(prefix) and name not in copies]
        columns, unfit = _columns(tree, root, below)
        bare = [name for name in below if "/" not in name[len(prefix) :]]
        if group:
            return replace(spec, root=root, group=group), columns
        if not bare and len({name[len(prefix) :].partition("/")[0] for name in below}) > 1:
            return replace(spec, root=root), columns
        if columns:
            return replace(spec, root=root, group=columns[:1]), columns
        raise _no_groups(tree.where, prefix, below, bare, unfit)


def _no_groups(
    where: str, prefix: str, names: Sequence[str], bare: Sequence[str], unfit: Mapping[str, str]
) -> DataError:
    """What to say of `names`, below `prefix`, that make no groups; `bare` lie in no folder there."""
    folders = {name[len(prefix) :].partition("/")[0] for name in names} if len(bare) < len(names) else set()
    columns = "; ".join(f"column {name} of the metadata: {reason}" for name, reason in unfit.items())
    add = "add a metadata.csv with the columns file_name and group"
    if not bare:
        return DataError(
            f"{where}: all images are of one group, {next(iter(folders))}",
            why=columns or "what is owed to a group is told by comparing it with others",
            fix=f"put each group's images into a folder named after it, or {add}",
        )
    lie = f"{few(list(bare), 3)} {'lie' if len(bare) > 1 else 'lies'} in no folder of a group"
    if folders:
        return DataError(
            f"{where}: {plural(len(bare), 'image is', 'images are')} of no group",
            why="; ".join(filter(None, (f"{lie}, beside folders with images", columns))),
            fix=f"move {'it' if len(bare) == 1 else 'them'} into a folder or away, or {add}",
        )
    return DataError(
        f"{where}: nothing says which group an image is of",
        why="; ".join(filter(None, (lie, columns))),
        fix=f"put each group's images into a folder named after it, or {add}",
    )


def _top(names: Sequence[str]) -> str:
    """The folder below which groups begin: archives wrap all in one, data sets have a part to train on."""
    root = ""
    while True:
        prefix = root + "/" if root else ""
        inside = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        folders = {name.partition("/")[0] for name in inside if "/" in name}
        loose = any("/" not in name for name in inside)
        train = [name for name in folders if name.lower() in TRAINING]
        deeper = {name.partition("/")[0] for name in inside if name.count("/") > 1}
        if train and {name.lower() for name in folders} <= PARTS and not loose:
            root = prefix + train[0]
        elif len(folders) == 1 and folders == deeper and not loose:
            root = prefix + next(iter(folders))
        else:
            return root


def _columns(tree: Tree, root: str, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Metadata columns that name several groups of more than one image each, the fewest groups first.

    And why others do not.
    """
    meta = read_metadata(tree, root, strict=False)
    if not meta.sources:
        samples = sample_files(tree.files)
        with contextlib.suppress(DataError):  # they may be another program's; who names a column hears of it
            add_samples(meta, tree, {name: samples[name] for name in names if name in samples})
    found, unfit = dict[str, int](), dict[str, str]()
    for column in meta.columns:
        if column == "folder":
            unfit[column] = "as a group the word means folders; name the column otherwise"
            continue
        if column in ("file_name", *PROMPT_COLUMNS):
            continue
        try:
            values = Counter(value for name in names for value in meta.values(name, column))
        except DataError:
            unfit[column] = "it holds objects"
            continue
        lacking = [name for name in names if not meta.values(name, column)]
        if lacking:
            unfit[column] = f"nothing for {few(lacking, 2)}"
        elif len(values) < 2:
            unfit[column] = "the same for all images"
        elif len(values) > min(MOST_VALUES, len(names) // 2):
            unfit[column] = f"{len(values):,} values for {plural(len(names), 'image', 'images')}"
        else:
            found[column] = len(values)
    likely = ("group", "artist", "style", "class", "label", "category", "source", "license", "licence")
    order = {name: place for place, name in enumerate(likely)}
    fit = sorted(found, key=lambda name: (order.get(name.lower(), len(likely)), found[name], name))
    return tuple(fit), unfit


def _headers(spec: DataSpec, data: Dataset) -> tuple[list[int], dict[str, int]]:
    """Shorter sides and formats of image files; of packed data sets the side that they have."""
    kind, path = locate(spec)
    if path is None or kind not in ("folder", "archive"):
        return [_packed_side(kind, path)], {kind: len(data)}
    sides, formats = [], Counter[str]()
    with closing(open_tree(kind, path)) as tree:
        if not any(map(is_image, tree.files)):
            return [CIFAR], {"cifar-binary": len(data)}
        names = [f"{spec.root}/{name}" if spec.root else name for name in data.names]
        for name in tree.order(names[:: max(1, len(names) // HEADERS)]):
            what, side = header(tree.read(name))
            sides.append(side)
            formats[what] += 1
    return sides or [LOOKED_AT], dict(formats.most_common())


def _packed_side(kind: str, path: Path | None) -> int:
    """The shorter side of images that lie in one array."""
    if path is not None and kind == "parquet":
        from guda_cli.data.sources.parquet_table import Table

        images = itertools.islice(Table(path).images(), LOOKED_AT)
        return min((header(data)[1] for _, data in images if data), default=CIFAR)
    files = idx_files(path) if path is not None and kind == "idx" else None
    if files is not None:
        return int(min(read_array(files.images, 3).shape[1:]))
    return 8 if kind == "digits" else CIFAR


def _grey(data: Dataset) -> bool:
    """Whether hardly any image has a colour."""
    images = data.images.astype(np.int16)
    spread = (images.max(axis=1) - images.min(axis=1)).reshape(len(images), -1)
    return bool(((spread > GREY).mean(axis=1) < 0.01).mean() > 0.99)


def _models(path: Path) -> tuple[str, ...]:
    """Model folders and weights in the folder, or beside it."""
    top = path if path.is_dir() else path.parent
    found = []
    for folder in (top, top.parent if path.is_dir() else top):
        found += [str(sub) for sub in [folder, *_folders(folder)] if any((sub / n).is_file() for n in MODELS)]
        found += [str(file) for file in sorted(folder.glob("*.safetensors")) if file.is_file()]
    return tuple(dict.fromkeys(found))


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError:
        return []


# -- duplicates ------------------------------------------------------------------------------------


def _alike(data: Dataset) -> dict[str, tuple[Pair, ...]]:
    """Pairs of images that are the same, or nearly, within a group and across groups."""
    first: dict[str, int] = {}
    same = []
    for row, digest in enumerate(pixels_digests(data.images)):
        other = first.setdefault(digest, row)
        if other != row:
            same.append((row, other))
    rows = np.array(sorted(first.values()), dtype=np.int64)
    near = [(int(rows[i]), int(rows[j])) for i, j in near_pairs(data.images[rows])]
    found = {}
    for name, pairs in (("same", same), ("near", near)):
        within = [bool((data.membership[i] & data.membership[j]).any()) for i, j in pairs]
        named = [(data.names[i], data.names[j]) for i, j in pairs]
        found[name] = tuple(pair for pair, mine in zip(named, within, strict=True) if mine)
        found[f"{name}_across"] = tuple(pair for pair, mine in zip(named, within, strict=True) if not mine)
    return found


def near_pairs(images: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Pairs (i, j), j < i, of nearly equal images [N, C, H, W], one for each such i: its first.

    Perceptual hashes (64 bits of a cosine transform) that differ in NEAR bits at most, and small copies that
    differ by APART grey levels at most: flat images have hashes of chance. Of more than COMPARED images only
    those with one hash are compared.
    """
    hashes = _hashes(images)
    tiny = small(images, 8).astype(np.int16).reshape(len(images), -1)
    found = []
    for i, candidates in enumerate(_candidates(hashes)):
        apart = np.abs(tiny[candidates] - tiny[i]).mean(axis=1)
        alike = candidates[apart <= APART]
        if len(alike):
            found.append((i, int(alike[0])))
    return found


def _candidates(hashes: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.int64]]:
    """For each image the earlier ones whose hashes are near."""
    if len(hashes) <= COMPARED:
        ones = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
        bits = hashes.view(np.uint8).reshape(-1, 8)
        return [np.flatnonzero(ones[bits[:i] ^ bits[i]].sum(axis=1) <= NEAR) for i in range(len(hashes))]
    seen: dict[int, list[int]] = {}
    out = []
    for i, value in enumerate(hashes.tolist()):
        out.append(np.array(seen.get(value, []), dtype=np.int64))
        seen.setdefault(value, []).append(i)
    return out


def _hashes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    import imagehash
    from PIL import Image

    out = np.empty(len(images), dtype=np.uint64)
    for row, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        bits = np.asarray(imagehash.phash(picture).hash, dtype=np.uint8).ravel()
        out[row] = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return out
