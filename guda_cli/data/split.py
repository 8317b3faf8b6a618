"""Holding images out of training: a share of every group, chosen by digests (`DataSpec.held_out`)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter

import numpy as np

from guda_cli.data.dataset import Dataset, Mask, part
from guda_cli.data.images import pixels_digests
from guda_cli.phrases import plural


def taken(per_group: int, share: float) -> int:
    """How many images of a group are read, so that `per_group` are left when `share` of them is held out."""
    return round(per_group / (1.0 - share))


def hold_out(data: Dataset, share: float) -> Dataset:
    """The training part of `data`; its `held_out` is about `share` (0..0.5) of the images of every group.

    The choice goes by digests: names and order leave it as it is. An image that is there twice stays in
    training, as one that was trained on cannot be held out. One in several groups counts in each, and no
    group gives more than its share: all keep an image at least. With a share of 0, `data` as it is.
    """
    if share == 0:
        return data
    held = _chosen(data.membership, pixels_digests(data.images), share)
    note = plural(int(held.sum()), "image is", "images are") + " held out of training (data.held_out)"
    training = part(data, ~held)
    return dataclasses.replace(training, notes=(*data.notes, note), held_out=part(data, held))


def _chosen(membership: Mask, digests: list[str], share: float) -> Mask:
    """Which images [N] are held out, by membership [N, G] and digests [N]."""
    left = np.array([round(share * n) for n in membership.sum(axis=0).tolist()])
    copies = Counter(digests)
    held = np.zeros(len(digests), dtype=np.bool_)
    for i in sorted(range(len(digests)), key=lambda i: _place(digests[i])):
        own = membership[i]
        if copies[digests[i]] == 1 and left[own].min() > 0:
            held[i] = True
            left[own] -= 1
    return held


def _place(digest: str) -> str:
    """Where an image stands in the random order that images are held out in."""
    return hashlib.sha256(f"guda.held-out/1\0{digest}".encode()).hexdigest()
