"""The tiny trained project, for every module of this folder."""

from tests.workflow.fixtures import cli, one_thread, project, template
from tests.workflow.oracle import bench, oracle

__all__ = ["bench", "cli", "one_thread", "oracle", "project", "template"]
