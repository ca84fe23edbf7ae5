"""The page and its visitors: no code of theirs runs, nothing else of this machine can be reached, nothing is kept."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import websocket
from test_browser import free_port, serving
from tornado.web import HTTPError

from allkit import AllkitError
from allkit.app.page import CappedKernels, read_base_url
from allkit.backend import keras
from allkit.models import TrainedModel, save_model

KERNELS = 3


@dataclass(frozen=True)
class Page:
    port: int
    log: Path
    server: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    layers = [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    metadata = {"model": "mobilenet", "classes": ["ALL", "HEM"], "input": {"image_size": 32, "crop": 300},
                "data": {"source": "synthetic"}}  # fmt: skip
    save_model(TrainedModel(keras.Sequential(layers), metadata), folder / "run" / "models" / "mobilenet.keras")
    port = free_port()
    command = [sys.executable, "-c", "from allkit.cli import main; main()", "app", "--model", str(folder / "run"),
               f"--port={port}", f"--kernels={KERNELS}", "--idle=10"]  # fmt: skip
    with open(folder / "log", "w", encoding="utf-8") as log, serving(command, port, stderr=log) as server:
        yield Page(port, folder / "log", server.pid)


def ask(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as response:
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def visit(page: Page) -> str:
    """Open the page as soon as there is room; return the visitor's kernel."""
    for _ in range(120):
        status, html = ask(page.url)
        if status == 200:
            return re.search(r'"kernelId":\s*"([0-9a-f-]{36})"', html)[1]
        assert status == 503
        assert "Too many visitors" in html
        time.sleep(1)
    raise AssertionError("no room in two minutes")


def connect(page: Page, kernel: str, **options) -> websocket.WebSocket:
    address = f"ws://127.0.0.1:{page.port}/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
    return websocket.create_connection(address, timeout=60, **options)


def message(kind: str, content: dict, channel: str = "shell") -> str:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": kind,
        "session": "s",
        "username": "u",
        "version": "5.3",
        "date": "",
    }
    return json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": channel})


def answers_until(channel: websocket.WebSocket, last: str) -> list[str]:
    """Return the kinds of the messages that arrive, up to the one named."""
    kinds = []
    while last not in kinds:
        answer = channel.recv()
        kinds.append(json.loads(answer)["msg_type"] if isinstance(answer, str) else "binary")
    return kinds


def send_and_wait(channel: websocket.WebSocket, data: bytes) -> None:
    """Send a large message, and take what comes until the other side closes."""
    channel.send_binary(data)
    while channel.recv():
        pass
    raise OSError("closed")


def test_a_visitors_kernel_runs_no_code_that_is_sent_to_it(page, tmp_path):
    channel = connect(page, visit(page))
    code = f"open({str(tmp_path / 'written')!r}, 'w').write('x')"
    run = {"code": code, "silent": False, "store_history": False, "user_expressions": {"a": code}}
    for name in ("shell", "control"):
        channel.send(message("execute_request", run, name))
        channel.send(message("debug_request", {"command": "evaluate", "arguments": {"expression": code}}, name))
    channel.send(message("inspect_request", {"code": code, "cursor_pos": 3, "detail_level": 1}))
    channel.send(message("complete_request", {"code": code, "cursor_pos": 3}))
    channel.send(message("input_reply", {"value": code}, "stdin"))
    channel.send(message("kernel_info_request", {}))
    kinds = answers_until(channel, "kernel_info_reply")
    assert not {"execute_reply", "execute_input", "inspect_reply", "complete_reply", "debug_reply"} & set(kinds)
    channel.close()
    assert not (tmp_path / "written").exists()


def test_no_other_notebook_file_terminal_or_kernel_can_be_reached(page):
    mine = visit(page)
    for path in ("api/kernels", "api/contents", "api/contents/classify.ipynb", "api/terminals", "api/sessions",
                 "files/classify.ipynb", "voila/files/classify.ipynb", "tree", "lab", "notebooks/classify.ipynb",
                 "voila/files/..%2f..%2f..%2fetc/passwd", "static/../../../etc/passwd", "api/config/notebook",
                 "voila/render/../../etc/passwd", "voila/static/..%2f..%2f..%2f..%2fetc/passwd"):  # fmt: skip
        status, text = ask(page.url + path)
        assert status in (403, 404, 405), path
        assert "root:" not in text
        assert mine not in text
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        connect(page, str(uuid.uuid4()))
    for kernel in (mine, str(uuid.uuid4())):
        request = urllib.request.Request(f"{page.url}api/kernels/{kernel}/restart", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code in (403, 404, 405)


def test_who_leaves_makes_room_at_once(page):
    kernel = visit(page)
    for expected in (204, 404):
        request = urllib.request.Request(f"{page.url}voila/api/shutdown/{kernel}", data=b"", method="POST")
        try:
            status = urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status == expected
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        connect(page, kernel)


def test_a_warm_kernel_that_was_refused_hinders_no_other_from_ending():
    """Voilà asks everything in its pool for its result before it ends a kernel: a refusal there would be raised."""

    async def pools():
        loop, manager = asyncio.get_running_loop(), CappedKernels()
        refused, ready, starting = loop.create_future(), loop.create_future(), loop.create_future()
        refused.set_exception(HTTPError(503))
        ready.set_result({"kernel_id": "a"})
        manager._pools = {"classify.ipynb": [refused, ready, starting], "other.ipynb": []}
        manager.forget_refused()
        return manager._pools["classify.ipynb"] == [ready, starting]

    assert asyncio.run(pools())


def test_foreign_names_and_origins_are_refused(page):
    kernel = visit(page)
    status, text = ask(page.url, Host="evil.example")
    assert status == 403
    assert "kernelId" not in text
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        connect(page, kernel, origin="http://evil.example")
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        connect(page, kernel, host="evil.example")
    connect(page, kernel).close()


def test_forty_visitors_at_once_are_served_or_asked_to_come_back_and_the_next_is_served(page):
    with ThreadPoolExecutor(40) as visitors:
        answers = list(visitors.map(lambda _: ask(page.url), range(40)))
    statuses = [status for status, _ in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(503) >= 40 - KERNELS
    assert all("Too many visitors" in text and "Traceback" not in text for status, text in answers if status == 503)
    kernels = [re.search(r'"kernelId":\s*"([0-9a-f-]{36})"', text)[1] for status, text in answers if status == 200]
    assert len(set(kernels)) == len(kernels), "each visitor has a kernel of their own"
    visit(page)


def test_a_message_of_two_hundred_megabytes_ends_that_visit_only(page):
    channel = connect(page, visit(page))
    with pytest.raises((websocket.WebSocketException, OSError)):
        send_and_wait(channel, bytes(200_000_000))
    visit(page)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the kernel by its command line")
def test_a_kernel_that_dies_ends_that_visit_only(page):
    kernel = visit(page)
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if kernel in words:
            os.kill(int(process.name), signal.SIGKILL)
            killed += 1
    assert killed
    visit(page)


def test_what_a_visitor_sends_is_on_no_record(page):
    channel = connect(page, visit(page))
    for sign in ("update", "custom", "no such method"):
        upload = {"name": "secret name.png", "type": "image/png", "size": 9, "content": "secret pixels"}
        data = {"method": sign, "state": {"value": [upload]}, "content": upload, "buffer_paths": []}
        channel.send(message("comm_msg", {"comm_id": uuid.uuid4().hex, "data": data}))
        channel.send(message("comm_open", {"comm_id": uuid.uuid4().hex, "target_name": "jupyter.widget", "data": data}))
    channel.send(message("kernel_info_request", {}))
    answers_until(channel, "kernel_info_reply")
    channel.close()
    assert "secret" not in page.log.read_text(encoding="utf-8")


def start_page(run: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "allkit", "app", "--model", str(run), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def test_a_taken_port_is_said_before_anything_else(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        out, err = start_page(tmp_path / "no such run", f"--port={port}").communicate(timeout=120)
    assert f"port {port} cannot be used" in err
    assert "Choose another --port" in err
    assert out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="finds the kernel by its command line")
def test_the_address_that_is_said_is_served_and_goes_with_the_command(page):
    """Under the path that a proxy gives it; after the command is stopped, neither page nor kernel is left."""
    port = free_port()
    server = start_page(page.log.parent / "run", f"--port={port}", "--base-url=cells")
    address = re.search(r"http://\S+", server.stdout.readline())[0]
    assert address == f"http://127.0.0.1:{port}/cells/"
    status, html = ask(address)
    assert status == 200
    links = re.findall(r'(?:src|href)="(/[^"]*)"', html)
    assert links
    assert all(link.startswith("/cells/") for link in links)
    assert ask(f"http://127.0.0.1:{port}/")[0] == 404
    mine = children_of(server.pid)
    assert mine
    server.terminate()
    server.wait(30)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    for _ in range(60):
        if not any(map(psutil.pid_exists, mine)):
            break
        time.sleep(0.5)
    assert not any(map(psutil.pid_exists, mine))


def children_of(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children(recursive=True)]


@pytest.mark.parametrize("text", ["http://x/", "/a//b", "../x", "/a b/", "<script>"])
def test_a_base_url_that_is_no_path_is_refused(text):
    with pytest.raises(AllkitError, match="--base-url"):
        read_base_url(text)
