"""guda from Python: train, unlearn, score and report on one recipe in one store. See docs/python.md.

Importing it imports no torch; the work that needs it does.
"""

from guda.api import Model, Project, Scores
from guda.api import open_project as open
from guda_cli.errors import GudaError as Error

__all__ = ["Error", "Model", "Project", "Scores", "open"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("guda")
    raise AttributeError(f"module 'guda' has no attribute '{name}'")
