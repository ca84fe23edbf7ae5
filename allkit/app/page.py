"""Room `page`: the upload cell as a page of its own, served by Voilà on this machine only.

Every visitor gets a kernel (a process) of their own, so that nobody sees another's images; one is kept warm.
Voilà knows no limit on their number, which is what `CappedKernels` adds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int

SETTINGS = {
    "ip": "127.0.0.1",
    "kernels": 4,
    "idle": 600,  # s
    "upload": 64 * 1024 * 1024,  # bytes in one message, which may hold several files
}
"""Where the page is served and what it may use; the README states them."""


class CappedKernels(AsyncMappingKernelManager):
    """Refuses to start more than `most` kernels: the visitor is told to come back."""

    most = Int(SETTINGS["kernels"], config=True, help="How many kernels may live at once.")
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


def build_page(
    run: str, folder: Path, *, kernels: int = SETTINGS["kernels"], idle: int = SETTINGS["idle"]
) -> list[str]:
    """Write the notebook that Voilà serves, and Voilà's settings, into a folder.

    Code is hidden, errors show no traceback, uploads, kernels and idle time are bounded.

    Args:
        run: path of a run folder or of a .keras file.
        folder: an empty folder; the command has to run in it.
        kernels: how many visitors at once, counting the one kept warm.
        idle: seconds after which an idle visitor's kernel ends.

    Returns:
        The command, without the port.
    """
    code = (
        "from allkit.models import load_models\nfrom allkit.app.upload import ClassifierApp\n\n"
        f"app = ClassifierApp(load_models({run!r}))\napp.warm_up()\napp"
    )
    title = "# Classify images of cells\n\nUpload the microscope image of a cell and read what a network makes of it."
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(title), nbformat.v4.new_code_cell(code)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, folder / "classify.ipynb")
    settings = {
        "Voila": {
            "ip": SETTINGS["ip"],
            "open_browser": False,
            "log_level": "WARN",
            "tornado_settings": {"websocket_max_message_size": SETTINGS["upload"]},
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
    (folder / "voila.json").write_text(json.dumps(settings))
    return [sys.executable, "-m", "voila", "classify.ipynb"]
