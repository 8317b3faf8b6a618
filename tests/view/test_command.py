"""`guda view` as a command."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.view.conftest import Viewed

WITHOUT = "import sys; sys.modules['uvicorn'] = None; from guda_cli.app import run; sys.exit(run(['view']))"


def test_without_its_packages_it_says_what_to_install(viewed: Viewed) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=viewed.folder, env=viewed.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "guda view needs uvicorn, which is not installed" in done.stderr
    assert "try: pip install 'guda[view]'" in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken(viewed: Viewed) -> None:
    taken = viewed.run("view", "--no-open", "--port", str(viewed.port))
    assert taken.code == 2
    assert b"try: guda view --port 0" in taken.err
    with socket.create_connection(("127.0.0.1", viewed.port)):
        pass
