"""Which groups are alike enough in size to share a null. Imports nothing: plans need it."""

from __future__ import annotations

import math


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
