"""The upload cell as a page of its own, served by Voilà on this machine only.

Every visitor gets a kernel (a process) of their own, so that nobody sees another's images; one is kept warm.
Voilà knows no limit on their number, which is what `CappedKernels` adds.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from tornado.web import HTTPError
from traitlets import Int
from traitlets.config import Config
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler

from allkit import AllkitError
from allkit.app.pictures import draw_examples
from allkit.images import brighten, brightening, to_address, to_png

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes in one message from the browser, which holds one file."""

TITLE = "Leukemic or healthy? Ask a network"

LEAD = (
    "Drop the microscope image of one cell and read what a network makes of it. Your image stays in the memory of the "
    "machine that serves this page, and is sent nowhere else."
)


class CappedKernels(AsyncMappingKernelManager):
    """Refuses to start more than `most` kernels: the page then says that the visitor should come back later."""

    most = Int(4, config=True, help="How many kernels may live at once.")
    _starting = 0

    async def _async_start_kernel(self, **kwargs: Any) -> str:
        # those being started count too: two visitors may come in the same second
        if len(self) + self._starting >= self.most:
            IOLoop.current().call_later(0.1, self.forget_refused)
            raise HTTPError(503, reason="Too many visitors just now. Please try again in a few minutes.")
        self._starting += 1
        try:
            return await super()._async_start_kernel(**kwargs)
        finally:
            self._starting -= 1

    start_kernel = _async_start_kernel

    def forget_refused(self) -> None:
        """Take kernels that were to be kept warm, and were refused, out of Voilà's pool.

        As long as one stands there, its error meets whoever leaves, and no kernel ends, not even an idle one.
        """
        for pool in getattr(self, "_pools", {}).values():
            pool[:] = [task for task in pool if not (task.done() and not task.cancelled() and task.exception())]


class Page(Voila):
    """Voilà with the kit's template, in this process: whatever ends the process ends the page."""

    def setup_template_dirs(self) -> None:
        """Look for templates beside this module first."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(Path(__file__).with_name("templates")))

    def init_handlers(self) -> list:
        """Let a visitor who leaves end the kernel that was theirs."""
        ends = {VoilaShutdownKernelHandler: LeavingHandler}
        return [(path, ends.get(handler, handler), *more) for path, handler, *more in super().init_handlers()]


class LeavingHandler(VoilaShutdownKernelHandler):
    """Ends a kernel without the token against forged requests, which a browser cannot send as it leaves a page.

    Nobody else knows the number of the kernel.
    """

    def check_xsrf_cookie(self) -> None:
        """Ask for nothing."""

    async def post(self, kernel_id: str) -> None:
        """End the kernel, whether or not the next one could be kept warm."""
        self.kernel_manager.forget_refused()
        await super().post(kernel_id)


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


def serve_page(
    run: Path,
    port: int,
    *,
    kernels: int,
    idle: int,
    hosts: Sequence[str] = (),
    base_url: str = "/",
    announce: Callable[[str], None],
) -> None:
    """Serve the models of a run folder, or of a .keras file, at a port of this machine, until the process is stopped.

    At most `kernels` visitors are served at once, counting the one kept warm, and an idle one's kernel ends after
    `idle` seconds. Asked for under another name than this machine's own or one of `hosts`, it refuses. `base_url` is
    the path under which a proxy shows it. `announce` gets the address once it is served. Code is hidden, and errors
    show no traceback.
    """
    base = read_base_url(base_url)
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder) / "classify.ipynb"
        nbformat.write(_notebook(run), notebook)
        page = Page(config=_settings(port, kernels, idle, hosts, base))
        page.initialize([str(notebook)])
        # the loop only turns once the port is taken
        IOLoop.current().add_callback(announce, f"http://127.0.0.1:{port}{base}")
        page.start()


def read_base_url(text: str) -> str:
    """Return a path as Voilà wants it, "/cells/" for "cells"; AllkitError where it is none."""
    if not re.fullmatch(r"[\w.~/@%-]*", text) or "//" in text or ".." in text:
        raise AllkitError(f"--base-url {text!r} is no path; give what follows the name of the server, like /cells/.")
    return f"/{text.strip('/')}/" if text.strip("/") else "/"


def _notebook(run: Path) -> nbformat.NotebookNode:
    code = (
        "from allkit.models import load_models\nfrom allkit.app.upload import ClassifierApp\n\n"
        f"app = ClassifierApp(load_models({str(run)!r}, lazily=True))\napp.warm_up()\napp"
    )
    both = np.concatenate(list(draw_examples().values()), axis=1)[75:375:2, ::2]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code)],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "title": TITLE,
            "lead": LEAD,
            "picture": to_address(to_png(brighten(both, brightening([both])), colours=128)),
            "alt": "Two synthetic cells: a leukemic one on the left, a healthy one on the right",
        },
    )


def _settings(port: int, kernels: int, idle: int, hosts: Sequence[str], base_url: str) -> Config:
    voila = {
        "ip": "127.0.0.1",
        "port": port,
        "base_url": base_url,
        "open_browser": False,
        "port_retries": 0,  # rather no page than one at another address than was said
        "log_level": "ERROR",
        "tornado_settings": {
            "websocket_max_message_size": MAX_MESSAGE,
            # Voilà would answer to any name, and so to a foreign page that has its own name lead here
            "allow_remote_access": False,
            "local_hostnames": ["localhost", *hosts],
        },
    }
    configuration = {
        "strip_sources": True,
        "show_tracebacks": False,
        "preheat_kernel": True,
        "default_pool_size": 1,
        "allow_template_override": "NO",
        "allow_theme_override": "NO",
        "multi_kernel_manager_class": CappedKernels,
    }
    cull = {"cull_idle_timeout": idle, "cull_interval": min(60, idle), "cull_connected": True}
    sockets = {"transport": "ipc"} if os.name == "posix" else {}  # other users of this machine cannot connect
    return Config(
        Voila=voila,
        VoilaConfiguration=configuration,
        CappedKernels={"most": kernels, **cull},
        KernelManager=sockets,
    )
