"""The upload cell as a page of its own, served by Voilà on this machine only.

Every visitor gets a kernel (a process) of their own, so that nobody sees another's images; one is kept warm.
Voilà knows no limit on their number, which is what `CappedKernels` adds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int

from allkit import AllkitError

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes in one message from the browser, which may hold several files."""


class CappedKernels(AsyncMappingKernelManager):
    """Refuses to start more than `most` kernels: the page then says that the visitor should come back later."""

    most = Int(4, config=True, help="How many kernels may live at once.")
    _starting = 0

    async def _async_start_kernel(self, **kwargs: Any) -> str:
        # those being started count too: two visitors may come in the same second
        if len(self) + self._starting >= self.most:
            raise HTTPError(503, reason="Too many visitors just now. Please try again in a few minutes.")
        self._starting += 1
        try:
            return await super()._async_start_kernel(**kwargs)
        finally:
            self._starting -= 1

    start_kernel = _async_start_kernel


def check_port(port: int) -> None:
    """Raise an AllkitError where another program answers at this port of this machine."""
    with socket.socket() as probe:
        if os.name == "posix":  # one that has just ended is no hindrance; on Windows a used port would do as well
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise AllkitError(
                f"port {port} cannot be used ({error.strerror}): another program is there. Choose another --port."
            ) from error


def build_page(run: str, folder: Path, *, kernels: int, idle: int, hosts: Sequence[str] = ()) -> list[str]:
    """Write what Voilà serves, and its settings, into an empty folder; return the command, without port.

    `run` is the path of a run folder or of a .keras file. Code is hidden, errors show no traceback. At most `kernels`
    visitors are served at once, counting the one kept warm, and an idle one's kernel ends after `idle` seconds. Asked
    for under another name than this machine's own or one of `hosts`, it refuses. The command has to run in the folder.
    """
    nbformat.write(_notebook(run), folder / "classify.ipynb")
    (folder / "voila.json").write_text(json.dumps(_settings(kernels, idle, hosts)), encoding="utf-8")
    return [sys.executable, "-m", "voila", "classify.ipynb"]


def _notebook(run: str) -> nbformat.NotebookNode:
    code = (
        "from allkit.models import load_models\nfrom allkit.app.upload import ClassifierApp\n\n"
        f"app = ClassifierApp(load_models({run!r}))\napp.warm_up()\napp"
    )
    title = "# Classify images of cells\n\nUpload the microscope image of a cell and read what a network makes of it."
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(title), nbformat.v4.new_code_cell(code)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


def _settings(kernels: int, idle: int, hosts: Sequence[str]) -> dict:
    return {
        "Voila": {
            "ip": "127.0.0.1",
            "open_browser": False,
            "port_retries": 0,  # rather no page than one at another address than was said
            "log_level": "WARN",
            "tornado_settings": {
                "websocket_max_message_size": MAX_MESSAGE,
                # Voilà would answer to any name, and so to a foreign page that has its own name lead here
                "allow_remote_access": False,
                "local_hostnames": ["localhost", *hosts],
            },
        },
        "VoilaConfiguration": {
            "strip_sources": True,
            "show_tracebacks": False,
            "preheat_kernel": True,
            "default_pool_size": 1,
            "multi_kernel_manager_class": "allkit.app.page.CappedKernels",
        },
        "CappedKernels": {
            "most": kernels,
            "cull_idle_timeout": idle,
            "cull_interval": min(60, idle),
            "cull_connected": True,
        },
    }
