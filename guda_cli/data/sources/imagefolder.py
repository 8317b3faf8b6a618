"""Image files in a folder or an archive, grouped by folder or by a metadata column."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from guda_cli.data.dataset import Dataset, Pixels, Progress, make_dataset, room_before
from guda_cli.data.images import MAX_PIXELS, decode, is_image
from guda_cli.data.pixel_file import canvas, rows
from guda_cli.data.sources import unlearncanvas
from guda_cli.data.sources.captions import caption_file, read_captions
from guda_cli.data.sources.kohya import caption_files, concepts, read_captions_beside
from guda_cli.data.sources.left_out import told, unread
from guda_cli.data.sources.metadata import METADATA_NAMES, Metadata, Row, read_metadata
from guda_cli.data.sources.names import clean_root, composed, conflict_copies
from guda_cli.data.sources.selection import keep_common, select
from guda_cli.data.sources.tree import Tree
from guda_cli.data.sources.webdataset import CLASS, add_samples, sample_files
from guda_cli.errors import DataError, nearest
from guda_cli.phrases import few, plural
from guda_cli.sections import DataSpec

_MOST_BAD = 5


def read_tree(tree: Tree, spec: DataSpec, progress: Progress | None = None) -> Dataset:
    """The images of `tree` below `spec.root`, preprocessed and grouped; DataError as documented."""
    root = composed(clean_root(spec.root))
    canvas_like = "folder" in spec.group and unlearncanvas.has_seeds(tree.files, root)
    told_by_names = canvas_like and unlearncanvas.lacks_prompts(tree, spec.prompts, root)
    prompts_in = None if told_by_names else caption_file(tree, spec.prompts, root)
    captions = caption_files(tree.files) if spec.prompts is None else {}
    columns = {*spec.group, spec.common, spec.descriptors} - {"folder", None}
    samples = sample_files(tree.files) if columns else {}
    texts = {*captions.values(), *(file for both in samples.values() for file in both), prompts_in}
    names, notes = _images(tree, root, texts)
    if canvas_like:
        names = unlearncanvas.without_seeds(names, spec.groups, notes)
    if not spec.group:
        raise DataError("data.group is empty", fix="set it to folder or to a metadata column")
    by_column = spec.group != ("folder",)
    meta = read_metadata(tree, root, strict=by_column)
    names = _without_copies(names, meta, notes)
    if not columns <= set(meta.columns):
        add_samples(meta, tree, {path: samples[path] for path in names.values() if path in samples})
    notes += _unread_beside(tree, meta)
    _check_rows(tree, names, meta, root, notes, by_column=by_column)
    labels = _labels(tree, names, meta, spec, root, notes)
    notes += meta.notes
    if spec.common is not None:
        meta.check_column(spec.common, "data.common")
        values = {name: meta.values(path, spec.common) for name, path in names.items()}
        labels = keep_common(labels, values, spec.common, notes)
    chosen = select(labels, spec, notes)
    paths = {name: names[name] for name in chosen}
    prompts: list[str | None]
    if told_by_names:
        notes.append(f"there is no {spec.prompts}: prompts are made of the folders' names")
        prompts = [unlearncanvas.prompt_of(name) for name in paths]
    elif spec.prompts is None:
        prompts = _prompts_beside(tree, paths, meta, captions, notes)
    else:
        prompts = _prompts_named(tree, paths, spec, spec.prompts, prompts_in, notes)
    descriptors = _descriptors([names[name] for name in chosen], meta, spec)
    shape = (len(chosen), spec.channels, spec.size, spec.size)
    told = list(chosen), list(chosen.values()), prompts, descriptors
    images = _decode_all(tree, paths, spec, lambda: room_before(*told, shape), progress)
    notes += duplicates(images, chosen)
    return make_dataset(images, list(chosen), list(chosen.values()), prompts, notes, descriptors)


def _prompts_beside(
    tree: Tree, paths: Mapping[str, str], meta: Metadata, captions: Mapping[str, str], notes: list[str]
) -> list[str | None]:
    """The prompt of each image (name -> path): of the metadata, else its caption (`kohya`)."""
    unread = meta.unread_prompts(paths.values())
    if unread:
        images = plural(len(unread), "image has", "images have")
        notes.append(f"{images} a list for a caption, which counts as none: {few(unread, 3)}")
    found = {path: meta.prompt(path) for path in paths.values()}
    over = sum(found[path] is not None and path in captions for path in found)
    if over:
        files = plural(over, "caption beside an image is", "captions beside images are")
        notes.append(f"{files} not read: the metadata have a prompt")
    more = {path: captions[path] for path, text in found.items() if text is None and path in captions}
    found |= read_captions_beside(tree, more, notes)
    return [found[path] for path in paths.values()]


def _prompts_named(
    tree: Tree,
    paths: Mapping[str, str],
    spec: DataSpec,
    prompts: str,
    prompts_in: str | None,
    notes: list[str],
) -> list[str | None]:
    """The prompt of each image (name -> path) in the file `data.prompts`."""
    found = read_captions(tree, prompts, prompts_in, composed(clean_root(spec.root)), notes)
    bare = [name for name, path in paths.items() if path not in found]
    if bare:
        notes.append(
            f"{plural(len(bare), 'image has', 'images have')} no prompt in data.prompts: {few(bare, 3)}"
        )
    return [found.get(path) for path in paths.values()]


def _descriptors(paths: list[str], meta: Metadata, spec: DataSpec) -> list[tuple[str, ...] | None] | None:
    if spec.descriptors is None:
        return None
    meta.check_column(spec.descriptors, "data.descriptors")
    return [meta.descriptors(path, spec.descriptors) for path in paths]


def _images(tree: Tree, root: str, texts: Collection[str | None]) -> tuple[dict[str, str], list[str]]:
    """Name below the root -> path in the tree for every image, and notes on what was ignored: not `texts`."""
    prefix = root + "/" if root else ""
    inside = [path for path in tree.files if path.startswith(prefix)]
    if root and not inside:
        folders = sorted({p[:i] for p in tree.files for i, c in enumerate(p) if c == "/"})
        guess = nearest(root, folders)
        raise DataError(
            f"{tree.where} has no folder '{root}'",
            why="data.root names the folder that counts as the top",
            fix=f"did you mean '{guess}'?" if guess else "folders: " + few(folders, 8),
        )
    names = {path[len(prefix) :]: path for path in inside if is_image(path)}
    if not names:
        what = f"{tree.where}, folder {root}" if root else tree.where
        why = told(unread(inside))
        raise DataError(f"{what} holds no images", why=why, fix="check data.path and data.root")
    notes = list(tree.notes)
    foreign = unread(inside)
    if foreign:
        notes.append(told(foreign))
    used = {p for p in inside if is_image(p) or p.rpartition("/")[2] in METADATA_NAMES or p in texts}
    other = sorted(set(inside) - used - set(foreign))
    if other:
        ignored = plural(len(other), "file that is no image was", "files that are no images were")
        notes.append(f"{ignored} ignored ({few(other, 3)})")
    return names, notes


def _without_copies(names: dict[str, str], meta: Metadata, notes: list[str]) -> dict[str, str]:
    """`names` without conflict copies of images that are there, unless metadata name them; with a note."""
    copies = [name for name in conflict_copies(names) if names[name] not in meta.rows]
    if not copies:
        return names
    what = plural(len(copies), "conflict copy", "conflict copies") + " of a syncing tool left out"
    notes.append(f"{what}, for the images themselves are there ({few(copies, 2)})")
    left = names.keys() - set(copies)
    return {name: path for name, path in names.items() if name in left}


def _unread_beside(tree: Tree, meta: Metadata) -> list[str]:
    """A note where an archive without metadata has some beside it, which may be another's: not read."""
    archive = Path(tree.where)
    if meta.sources or archive.is_dir():
        return []
    beside = [name for name in METADATA_NAMES if (archive.parent / name).is_file()]
    return [f"{name} beside {archive.name} is not read: put it into the archive" for name in beside[:1]]


def _check_rows(
    tree: Tree, names: Mapping[str, str], meta: Metadata, root: str, notes: list[str], *, by_column: bool
) -> None:
    """Rows without image and, when grouping by column, images without row."""
    prefix = root + "/" if root else ""
    present = set(names.values())
    absent = sorted(path for path in meta.rows if path.startswith(prefix) and path not in present)
    if absent and by_column:
        raise DataError(
            f"{tree.where}: {plural(len(absent), 'image', 'images')} named in the metadata "
            f"not found: {few(absent)}",
            why="file_name is relative to the metadata file",
            fix="correct file_name, or remove the rows",
        )
    if absent:
        notes.append(
            f"{plural(len(absent), 'image', 'images')} named in the metadata not found: {few(absent, 3)}"
        )
    if not by_column:
        return
    if not meta.sources:
        raise DataError(
            f"{tree.where} has no metadata.jsonl or metadata.csv",
            why="; ".join(["data.group names a metadata column", *_unread_beside(tree, meta)]),
            fix="add one with file_name and that column, or set data.group: folder",
        )


def _labels(
    tree: Tree, names: Mapping[str, str], meta: Metadata, spec: DataSpec, root: str, notes: list[str]
) -> dict[str, frozenset[str]]:
    """Name -> groups."""
    columns = spec.group
    named = concepts({f for name in names for f in _folder_of(name)}, notes) if "folder" in columns else {}
    for column in columns:
        if column != "folder":
            meta.check_column(column)
    labels: dict[str, frozenset[str]] = {}
    bare: list[str] = []
    for name, path in names.items():
        held: set[str] = set()
        for column in columns:
            values = (
                [named[folder] for folder in _folder_of(name)]
                if column == "folder"
                else meta.values(path, column)
            )
            if not values:
                bare.append(name)
                break
            held.update(values if len(columns) == 1 else [f"{column}={v}" for v in values])
        else:
            labels[name] = frozenset(held)
    if bare:
        raise _without_group(tree, sorted(bare), spec, meta.rows.get(names[min(bare)]))
    _check_single_folder(tree, labels, spec, root)
    return labels


def _folder_of(name: str) -> list[str]:
    first, slash, _ = name.partition("/")
    return [first] if slash else []


def _without_group(tree: Tree, bare: list[str], spec: DataSpec, row: Row | None) -> DataError:
    """The error for images in no group; `row` is what metadata say of the first of them, if anything."""
    count = plural(len(bare), "image has", "images have")
    if spec.group == ("folder",):
        if any("\\" in name for name in bare):
            return DataError(
                f"{tree.where}: {count} no group folder: {few(bare)}",
                why="their names have backslashes: an archive of Windows was unpacked without its folders",
                fix="name the archive itself in data.path, or unpack it with another program",
            )
        return DataError(
            f"{tree.where}: {count} no group folder: {few(bare)}",
            why="with data.group: folder, the first folder below data.root is the group",
            fix="--set data.group=cls"
            if any(path.endswith(CLASS) for path in tree.files)
            else "move them into a folder named after their group, or set data.group to a metadata column",
        )
    return DataError(
        f"{tree.where}: {count} no group: {few(bare)}",
        why=f"no row speaks of {bare[0]}"
        if row is None
        else f"line {row.line} has nothing in {', '.join(spec.group)} (null, NaN, NA, None are nothing)",
        fix="add them to metadata.jsonl or metadata.csv, or move them away",
    )


def _check_single_folder(tree: Tree, labels: Mapping[str, frozenset[str]], spec: DataSpec, root: str) -> None:
    """An archive often wraps everything in one folder: say which root would help."""
    if spec.group != ("folder",) or len({g for held in labels.values() for g in held}) > 1:
        return
    only = next(iter(labels)).partition("/")[0]
    below = {name.split("/")[1] for name in labels if name.count("/") > 1}
    where = f"{root}/{only}" if root else only
    fix = f"set data.root: {where}" if below else "put each group's images into a folder of its own"
    raise DataError(
        f"{tree.where}: all images lie in one folder, '{where}', so there is only one group",
        why="attribution compares groups with each other, so it needs two at least",
        fix=fix,
    )


def _decode_all(
    tree: Tree,
    paths: Mapping[str, str],
    spec: DataSpec,
    before: Callable[[], int],
    progress: Progress | None,
) -> Pixels:
    """Pixels uint8 [N, C, size, size] in the order of `paths`; up to five bad files in one DataError.

    `before`: see `pixel_file.canvas`.
    """
    images = canvas((len(paths), spec.channels, spec.size, spec.size), before)
    row_of = {path: row for row, path in enumerate(paths.values())}
    limit = min(MAX_PIXELS, tree.max_pixels or MAX_PIXELS)
    bad: list[str] = []
    for done, path in enumerate(tree.order(row_of)):
        if progress is not None and done % 256 == 0:
            progress(done, len(paths))
        try:
            images[row_of[path]] = decode(tree.read(path), spec.size, spec.channels, path, max_pixels=limit)
        except DataError as err:
            bad.append(f"{path} ({err.why})")
            if len(bad) == _MOST_BAD:
                break
    if bad:
        raise DataError(
            f"{tree.where}: cannot read " + "; ".join(bad),
            why="a damaged image would change what the model learns, so it is not skipped silently",
            fix="replace them, delete them, or rename them to begin with a dot, which leaves them out",
        )
    if progress is not None:
        progress(len(paths), len(paths))
    return images.finished()


def duplicates(images: Pixels, labels: Mapping[str, frozenset[str]]) -> list[str]:
    """A note when pixel-identical images are in different groups; `images` in the order of `labels`."""
    first: dict[bytes, str] = {}
    pairs: list[str] = []
    for row, name in zip(rows(images), labels, strict=True):
        other = first.setdefault(hashlib.sha256(row.data).digest(), name)
        if labels[other] != labels[name]:
            pairs.append(f"{other} and {name}")
    if not pairs:
        return []
    count = plural(len(pairs), "image is", "images are")
    return [f"{count} identical to an image of another group after preprocessing ({few(pairs, 2)})"]
