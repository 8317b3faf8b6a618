"""The tiny trained project, and the example package as if it were installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guda_cli import plugins
from tests.workflow.fixtures import cli, one_thread, project, template

__all__ = ["cli", "one_thread", "package", "project", "template"]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package, found by `import` and by its entry points."""
    folder = Path(__file__).parent / "package"
    monkeypatch.syspath_prepend(folder)
    plugins.forget()
    yield folder
    plugins.forget()
