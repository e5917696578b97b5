"""The service on a real socket: slow and malformed clients, its start and its end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from command_line import command, refuse

Runs = Callable[..., Path]
SCRIPT = Path(__file__).parents[1] / "serving_process.py"
QUICK = {"body_seconds": 0.5, "max_seconds": 20.0}
HEADERS = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@contextlib.contextmanager
def started(
    settings: dict[str, Any] = QUICK, seconds_per_text: float = 0.0, seconds_of_loading: float = 0.0
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, and its address; it is ready unless it takes time to load."""
    arguments = [json.dumps(settings), str(seconds_per_text), str(seconds_of_loading)]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not seconds_of_loading:
            assert process.stderr is not None
            assert process.stderr.readline() == f"electrain serve: ready at {url}\n"
        yield process, url
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a service with short limits of time."""
    with started() as (_, url):
        yield url


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=20)


def rest_of(connection: socket.socket) -> bytes:
    """What the service sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def trickle(connection: socket.socket, content: bytes) -> None:
    """Sends a byte now and then, until the service has had enough."""
    with contextlib.suppress(OSError):
        for number in range(len(content)):
            connection.sendall(content[number : number + 1])
            time.sleep(0.05)


def asked(url: str, text: str) -> socket.socket:
    """A connection on which a text was sent, and no answer was read."""
    body = json.dumps({"inputs": [text]}).encode()
    connection = connected(url)
    connection.sendall(HEADERS + b"content-length: %d\r\n\r\n" % len(body) + body)
    return connection


def wait_for(url: str, line: str) -> None:
    """Waits until the metrics show a line."""
    for _ in range(1000):
        if line in httpx.get(f"{url}metrics", timeout=20, verify=False).text.splitlines():
            return
        time.sleep(0.02)
    raise AssertionError(line)


def is_served(url: str) -> bool:
    response = httpx.post(f"{url}embed", json={"inputs": ["a", "b"]}, timeout=20, verify=False)
    texts = [one["text"] for one in response.json()["answers"]]
    return texts == ["a", "b"]


@pytest.mark.parametrize(
    ("at_once", "slowly", "status"),
    [
        (b"", b"", b""),  # a connection that says nothing
        (b"", HEADERS, b""),
        (HEADERS + b"content-length: 200\r\n\r\n", b" " * 200, b"HTTP/1.1 408 "),
        (HEADERS + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 100, b"HTTP/1.1 408 "),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", HEADERS, b"HTTP/1.1 200 "),  # slow at its second request
    ],
)
def test_slow_clients_are_cut_off(url: str, at_once: bytes, slowly: bytes, status: bytes) -> None:
    with connected(url) as slow:
        slow.sendall(at_once)
        sending = threading.Thread(target=trickle, args=(slow, slowly))
        sending.start()
        assert is_served(url)  # meanwhile
        assert rest_of(slow).startswith(status)
        sending.join()


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),  # TLS
        (b"\x00\xff" * 100 + b"\r\n\r\n", (400,)),
        (b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n", (200, 400)),
        (b"GET /health HTTP/1.1\r\n\r\n", (400,)),  # no Host
        (b"GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", (400,)),
        (HEADERS + b"content-length: -5\r\n\r\n", (400,)),
        (HEADERS + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", (400,)),
        (HEADERS + b"content-length: 99999999999\r\n\r\n", (413,)),
        (HEADERS + b"content-length: " + b"9" * 5000 + b"\r\n\r\n", (400, 413)),
        (HEADERS + b"transfer-encoding: chunked\r\n\r\nzz\r\n", (400,)),
        (HEADERS + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n", (400,)),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", (400,)),
        (b"GET /%ff%fe%00%0aforged HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", (404,)),
        (
            b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
            (200,),
        ),
        (b"BREW /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", (405,)),
    ],
)
def test_malformed_requests_hurt_nobody(url: str, sent: bytes, statuses: tuple[int, ...]) -> None:
    with connected(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        answer = rest_of(connection)
    assert is_served(url)
    # A client that is still sending when the service closes may lose the answer.
    assert answer.startswith(tuple(f"HTTP/1.1 {status} ".encode() for status in statuses)) or (
        len(sent) > 50_000 and not answer
    )


def test_a_client_that_does_not_read_is_cut_off(url: str) -> None:
    with asked(url, "answer at length") as unread:  # which is more than the system holds
        unread.recv(1)
        time.sleep(2)  # four times the limit
        assert len(rest_of(unread)) < 20_000_000
    assert is_served(url)


def test_requests_share_a_connection(url: str) -> None:
    ask = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"
    with connected(url) as connection:
        connection.sendall((ask + b"\r\n") * 3 + ask + b"connection: close\r\n\r\n")
        assert rest_of(connection).count(b'{"status":"live"}') == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_was_accepted(number: signal.Signals) -> None:
    with started(seconds_per_text=0.5) as (process, url):
        connections = [asked(url, "a")]
        wait_for(url, 'electrain_queue_inputs{model="one"} 0.0')  # it is being computed
        connections += [asked(url, text) for text in "bc"]
        wait_for(url, 'electrain_queue_inputs{model="one"} 2.0')
        with connected(url) as idle:
            process.send_signal(number)
            assert rest_of(idle) == b""  # no request, nothing to wait for
            with pytest.raises(ConnectionError):
                connected(url)
        answers = [rest_of(connection) for connection in connections]
        assert process.wait(20) == 128 + number
        _, log = process.communicate()
        for answer, text in zip(answers, "abc", strict=True):
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"text": "%s"' % text.encode() in answer
        assert "Traceback" not in log
        assert log.endswith("electrain serve: stopped\n")


def test_the_end_does_not_wait_for_ever() -> None:
    with started({"max_seconds": 1}, seconds_per_text=60) as (process, url), asked(url, "a"):
        wait_for(url, 'electrain_queue_inputs{model="one"} 0.0')
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM


def test_it_tells_that_it_loads_and_can_be_stopped_meanwhile() -> None:
    with started(seconds_of_loading=60) as (process, url):
        health = httpx.get(f"{url}health", timeout=20, verify=False)
        assert (health.status_code, health.json()) == (503, {"status": "loading", "models": {}})
        assert httpx.get(f"{url}health/live").status_code == 200
        early = httpx.post(f"{url}embed", json={"inputs": ["a"]})
        assert (early.status_code, early.json()) == (503, {"error": "the models are loading; try again later"})
        assert int(early.headers["retry-after"]) > 0
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_verb_serves_a_model_and_a_run(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    port, found = free_port(), {}
    url = f"http://127.0.0.1:{port}"

    def ask() -> None:
        try:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health", timeout=20, verify=False).status_code == 200:
                        break
                time.sleep(0.05)
            found["models"] = httpx.get(f"{url}/models").json()["models"][0]["name"]
            found["runs"] = httpx.get(f"{url}/runs").json()["runs"]
            found["tokens"] = len(
                httpx.post(f"{url}/detect", json={"inputs": ["a dog"]}).json()["answers"][0]["tokens"]
            )
            found["foreign"] = httpx.get(f"{url}/models", headers={"host": "evil.example"}).status_code
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    code, printed, err = command(
        capsys, "serve", "--model", f"mine={tiny_run()}", "--run", tiny_run(), "--port", str(port)
    )
    asking.join()
    assert found == {"models": "mine", "runs": [tiny_run().name], "tokens": 2, "foreign": 421}
    assert (code, printed) == (128 + signal.SIGTERM, [])
    assert f"electrain serve: ready at {url}/" in err


def test_what_cannot_be_served_is_said_in_one_line(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    line = refuse(["serve", "--model", str(tmp_path), "--port", "0"], capsys)
    assert str(tmp_path) in line
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line = refuse(["serve", "--run", str(tiny_run()), "--port", port], capsys)
        assert f"--port {port}: another program uses it" in line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may use every port")
def test_a_port_of_the_administrator_is_refused(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(["serve", "--run", str(tiny_run()), "--port", "1"], capsys)
    assert "--port 1: this user may not use it; choose one above 1023" in line
