"""Data sets that `guda data get` brings, and which recipe reads which of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from guda_cli.data.sources.detect import MissingSourceError
from guda_cli.errors import UsageError, unknown
from guda_cli.plain_text import quoted
from guda_cli.sections import DataSpec
from guda_cli.wanted_file import Wanted


@dataclass(frozen=True)
class KnownSet:
    """One data set."""

    name: str
    what: str
    """What it holds, where it is from and how it may be used."""
    recipes: tuple[str, ...]
    """The shipped recipes that read it, the first one for the command that goes on."""
    files: tuple[Wanted, ...] = ()
    """What is fetched; nothing for what comes with the program."""
    mirrors: tuple[str, ...] = ()
    """Folders (used where they are there) and addresses, in the order they are tried."""
    into: str = ""
    """The folder made for several files, in which they lie."""
    path: str = ""
    """What `data.path` names, below that folder."""
    sets: tuple[str, ...] = ()
    """Further settings that its layout needs."""
    build: bool = False
    """Whether the archive is made of what is fetched: `data.emoji_styles`."""

    @property
    def bytes(self) -> int:
        """Of what is fetched."""
        return sum(file.size for file in self.files)

    def command(self, path: Path) -> str:
        """What goes on with it at `path`."""
        options = [f"data.path={path}", *self.sets] if self.files else []
        return " ".join(["guda train", self.recipes[0], *(f"--set {quoted(o)}" for o in options)])


FASHION_FILES = (
    ("train-images-idx3-ubyte.gz", 26_421_880,
     "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
     "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    ("train-labels-idx1-ubyte.gz", 29_515,
     "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
     "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    ("t10k-images-idx3-ubyte.gz", 4_422_102,
     "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
     "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    ("t10k-labels-idx1-ubyte.gz", 5_148,
     "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
     "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)  # fmt: skip


@cache
def emoji_table() -> Mapping[str, Any]:
    """Concepts, styles and packages of emoji-styles: emoji_styles.json."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("emoji_styles.json").read_text("utf-8"))
    return found


def archive_name(package: str, version: str) -> str:
    """What `npm pack` calls the archive of a package."""
    return f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"


def _emoji_packages() -> tuple[Wanted, ...]:
    """The npm packages that emoji-styles is built from, with their digests in the public registry."""
    return tuple(
        Wanted(
            archive_name(entry["package"], entry["version"]), entry["bytes"], entry["sha256"],
            remote=f"{entry['package']}/-/{entry['package'].rpartition('/')[2]}-{entry['version']}.tgz",
        )
        for entry in emoji_table()["styles"].values()
    )  # fmt: skip


SETS = (
    KnownSet(
        "digits",
        "1,797 handwritten digits, 8x8; they come with scikit-learn",
        ("digits", "digits-class"),
    ),
    KnownSet(
        "fashion-mnist",
        "70,000 pictures of clothing, 28x28 grey; Zalando, MIT licence",
        ("fashion-mnist",),
        tuple(Wanted(name, size, digest, unpacked=raw) for name, size, digest, raw in FASHION_FILES),
        (
            "/usr/share/datasets/fashion-mnist",  # Debian's package dataset-fashion-mnist
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        into="fashion-mnist",
    ),
    KnownSet(
        "cifar10",
        "60,000 photographs in ten classes, 32x32 colour; Krizhevsky 2009, published for research",
        ("cifar10-small", "cifar10-gpu", "cifar10"),
        (
            Wanted(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        ("https://www.cs.toronto.edu/~kriz/",),
        path="cifar-10-binary.tar.gz",
        sets=("data.root=''",),
    ),
    KnownSet(
        "emoji-styles",
        "1,299 emoji in eleven styles, 64x64, with prompts; built from npm packages, a licence a style",
        ("emoji-styles",),
        _emoji_packages(),
        ("https://registry.npmjs.org/",),
        path="emoji-styles.tar",
        build=True,
    ),
)
NAMES = tuple(known.name for known in SETS)


def find(name: str) -> KnownSet:
    """The data set of that name; UsageError, with the nearest name, for another."""
    for known in SETS:
        if known.name == name:
            return known
    raise UsageError(unknown("data set", name, NAMES), fix="guda data ls")


def of_recipe(recipe: str) -> KnownSet | None:
    """What the shipped recipe of that name reads; None where it is the user's own images."""
    return next((known for known in SETS if recipe in known.recipes), None)


def is_there(spec: DataSpec) -> bool:
    """Whether the images that a recipe names can be read at once."""
    return spec.source == "digits" or (spec.path is not None and Path(spec.path).expanduser().exists())


def remedied(err: MissingSourceError, recipe: str) -> MissingSourceError:
    """`err` with the command that brings the images of a shipped recipe, where no path like it is there."""
    known = of_recipe(recipe)
    if known is not None and not err.guess:
        err.fix = f"guda data get {known.name}"
    return err
