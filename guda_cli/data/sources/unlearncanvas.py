"""UnlearnCanvas as it is downloaded: `<Style>/<Object>/<id>.jpg`, and the photographs it was painted from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from guda_cli.data.images import is_image
from guda_cli.data.sources.tree import Tree

SEEDS = "Seed_Images"
"""The folder of the photographs, by object as in every style's folder."""
TEMPLATE = "a picture of {object}, artistic style featuring {style}"


def has_seeds(files: Iterable[str], root: str) -> bool:
    """Whether the images below `root` lie so: all two folders deep, SEEDS with every style's objects."""
    prefix = root + "/" if root else ""
    objects: dict[str, set[str]] = {}
    for path in files:
        if path.startswith(prefix) and is_image(path):
            parts = path[len(prefix) :].split("/")
            if len(parts) != 3:
                return False
            objects.setdefault(parts[0], set()).add(parts[1])
    seeds = objects.pop(SEEDS, set())
    return bool(objects) and all(own & seeds for own in objects.values())


def without_seeds(names: dict[str, str], groups: Collection[str], notes: list[str]) -> dict[str, str]:
    """The images (name -> path) that are of a style, with a note; all of them where `groups` names SEEDS."""
    if SEEDS in groups:
        return names
    notes.append(
        f"{SEEDS} is left out: photographs that were painted over, and no style (data.groups may name it)"
    )
    return {name: path for name, path in names.items() if not name.startswith(SEEDS + "/")}


def lacks_prompts(tree: Tree, prompts: str | None, root: str) -> bool:
    """Whether `data.prompts` names a file within the data that the download does not bring."""
    if prompts is None or Path(prompts).is_absolute():
        return False
    return not {prompts, f"{root}/{prompts}"} & tree.files.keys()


def prompt_of(name: str) -> str:
    """What `Van_Gogh/Cats/1.jpg` shows: a picture of cats, artistic style featuring van gogh."""
    style, thing = (part.lower().replace("_", " ") for part in name.split("/")[:2])
    return TEMPLATE.format(object=thing, style=style)
