"""Data sets that are larger than memory: everything that is made of them is what memory would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from guda_cli.data import pixel_file
from guda_cli.store import Store
from guda_cli.workflow.models.pixel_tensor import MappedTensor, tensor_of
from tests.workflow.fixtures import run


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny project's images, of 3 KB all together, are large."""
    monkeypatch.setattr(pixel_file, "MAPPED", 500)
    monkeypatch.setattr(pixel_file, "BLOCK", 7 * 64)


def mapped(images: np.ndarray) -> np.ndarray:
    out = pixel_file.canvas(images.shape)
    for row, image in enumerate(images):
        out[row] = image
    return out.finished()


def test_all_is_the_same_as_in_memory(
    large: None, project: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUDA_STORE", str(project / "mapped"))
    assert run("train", template / "tiny.yaml") == 0
    assert run("unlearn", "--group", "amber", "--group", "blue") == 0
    assert run("score", "q") == 0
    there, here = Store.open(project / ".guda"), Store.open(project / "mapped")
    for operation in ("dataset", "train", "unlearn"):
        known = {one.key: one for one in there.records(operation)}
        found = list(here.records(operation))
        assert found
        for one in found:
            assert one.outputs == known[one.key].outputs
    assert not list((project / "mapped" / "tmp").iterdir())


def test_a_tensor_of_mapped_images_gives_plain_ones(large: None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    plain, found = tensor_of(images), tensor_of(mapped(images))
    assert type(plain) is torch.Tensor
    assert isinstance(found, MappedTensor)
    assert (len(found), found.shape, found.dtype) == (40, plain.shape, torch.uint8)
    few, many = torch.tensor([5, 0, 5]), torch.arange(39, -1, -1)
    for made in (found[few], found[3:5], found.float(), found.sum(0, dtype=torch.int64), found[:1] / 2):
        assert type(made) is torch.Tensor
    assert torch.equal(found[few], plain[few])
    assert isinstance(found[many], MappedTensor)  # as large: in a file as well
    assert torch.equal(found[many][:], plain[many])
    mask = torch.arange(40) % 2 == 0
    assert torch.equal(found[mask].float(), plain[mask].float())
    assert torch.equal(torch.cat([found, found.flip(-1)]), torch.cat([plain, plain.flip(-1)]))
    assert torch.equal(torch.stack([*torch.split(found, 8)]).flatten(0, 1), plain)
