"""The tiny trained project, for every module of this folder."""

from tests.workflow.fixtures import cli, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]
