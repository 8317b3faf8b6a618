"""What is taken away: a group, several groups together, or a random set for the null."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guda_cli.data.sources.names import composed
from guda_cli.errors import UsageError, unknown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from guda_cli.data.dataset import Dataset

NAMED = 4  # groups of a joint removal that are named one by one


@dataclass(frozen=True)
class Removal:
    """Images removed together: those of any of `groups`, or the `index`-th random set of `size` images."""

    groups: tuple[str, ...] = ()
    size: int = 0
    index: int = 0
    title: str = field(default="", compare=False)
    """What it is called instead; the same removal by any title."""

    @property
    def is_null(self) -> bool:
        """Whether this is a random set, drawn across all groups."""
        return not self.groups

    @property
    def name(self) -> str:
        """`van-gogh`, `a+b` for several, `random-180-1` for a null set; or the title."""
        return self.title or self.typed

    @property
    def typed(self) -> str:
        """Its name as it is typed, however long."""
        return "+".join(self.groups) if self.groups else f"random-{self.size}-{self.index + 1}"

    @property
    def short(self) -> str:
        """Its name; of more than `NAMED` groups the first ones, with what tells it from others."""
        if len(self.groups) <= NAMED:
            return self.name
        digest = hashlib.sha256("\0".join(self.groups).encode()).hexdigest()[:6]
        return f"{'+'.join(self.groups[:2])}+{len(self.groups) - 2} more ({digest})"

    def titled(self) -> Removal:
        """The same under its short name."""
        return dataclasses.replace(self, title=self.short if len(self.groups) > NAMED else "")

    @property
    def params(self) -> dict[str, Any]:
        """What enters an action's key."""
        if self.groups:
            return {"groups": list(self.groups)}
        return {"random": {"size": self.size, "index": self.index}}

    @staticmethod
    def of(params: Mapping[str, Any] | None) -> Removal | None:
        """The inverse of `params`; None for a model that nothing was removed from."""
        if not params:
            return None
        return Removal(tuple(params["groups"])) if "groups" in params else Removal(**params["random"])

    def images(self, counts: Mapping[str, int]) -> int:
        """About how many images go, by the number in each group: those in several groups count more."""
        return self.size or sum(counts.get(name, 0) for name in self.groups)

    def members(self, data: Dataset) -> npt.NDArray[np.bool_]:
        """bool [N]: which images of `data` are removed."""
        import numpy as np

        if self.groups:
            members: npt.NDArray[np.bool_] = np.stack([data.members(group) for group in self.groups])
            return np.asarray(members.any(axis=0))
        rng = np.random.Generator(np.random.PCG64([0x9D5E, self.size, self.index]))
        out = np.zeros(len(data.names), dtype=bool)
        out[rng.permutation(len(out))[: self.size]] = True
        return out


def of_groups(names: Sequence[str], known: Mapping[str, int]) -> list[Removal]:
    """Removals for names as typed (`a`, or `a+b` for a joint one), in the order given, once each.

    Raises UsageError for a group that is not in `known`, with the nearest name.
    """
    out: dict[Removal, None] = {}
    for name in map(composed, names):
        parts = (name,) if name in known else tuple(sorted(set(name.split("+"))))
        for part in parts:
            if part not in known:
                raise UsageError(unknown("group", part, known), fix="guda status --all-rows")
        out[Removal(parts)] = None
    return list(out)


def nulls(
    counts: Mapping[str, int], images: int, each: int, *, match: Sequence[Removal] | None = None
) -> list[Removal]:
    """`each` random sets for every size class of the groups; none that would leave no image.

    With `match`, only for the classes of those removals' groups.
    """
    classes = size_classes(dict(counts))
    names = counts if match is None else {group for what in match for group in what.groups}
    sizes = sorted({classes[name] for name in names})
    return [Removal(size=size, index=i) for size in sizes if size < images for i in range(each)]


def size_classes(sizes: dict[str, int], spread: float = 1.5) -> dict[str, int]:
    """The null-group size each group is compared with.

    Groups in order of size fall into classes whose largest is at most `spread` times the smallest;
    a class is matched by random groups of its geometric mean size.
    """
    classes: list[list[str]] = []
    for group in sorted(sizes, key=lambda name: (sizes[name], name)):
        if classes and sizes[group] <= spread * sizes[classes[-1][0]]:
            classes[-1].append(group)
        else:
            classes.append([group])
    out = {}
    for members in classes:
        mean = math.exp(sum(math.log(sizes[name]) for name in members) / len(members))
        out.update(dict.fromkeys(members, max(1, round(mean))))
    return out
