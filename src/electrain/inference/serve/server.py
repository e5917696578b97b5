"""Runs the service: its socket, models that load while it already tells its health, slow clients, and its end."""

import asyncio
import contextlib
import errno
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from electrain.foundation.errors import ConfigurationError
from electrain.foundation.process import SIGNAL_OFFSET
from electrain.foundation.progress import say
from electrain.inference.serve.app import page_alone
from electrain.inference.serve.guard import Recorded, send_json
from electrain.inference.serve.metrics import Metrics
from electrain.inference.serve.settings import ServeSettings

BACKLOG = 2048  # connections that the system holds before they are accepted
MOST_CONNECTIONS = 1000  # below the usual limit of 1024 open files
KEEP_ALIVE_SECONDS = 5.0
LARGEST_HEADERS_BYTES = 2**14
_LOADING_RETRY_SECONDS = "5"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: ConfigurationError: no such address, or the port cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigurationError(
            f"--host {host}: is no address; give 127.0.0.1 for this machine alone, or 0.0.0.0 for its network"
        ) from None
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except PermissionError:
        raise ConfigurationError(f"--port {port}: this user may not use it; choose one above 1023") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            way_out = "choose another, or --port 0 for any free one"
            raise ConfigurationError(f"--port {port}: another program uses it; {way_out}") from None
        reason = os.strerror(error.errno or 0)
        raise ConfigurationError(f"--host {host}: {reason}; give an address of this machine") from None


class TimedProtocol(H11Protocol):
    """HTTP that closes connections whose headers do not arrive in time, or that do not read their answers."""

    seconds = 10.0
    _headers_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._time_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._headers_timer, self._reading_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_timer = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()

    def _time_headers(self) -> None:
        """Starts the time limit when headers begin, and ends it when they are complete."""
        waits_for_headers = self.cycle is None or self.cycle.response_complete
        if waits_for_headers and self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self.seconds, self.transport.abort)
        elif not waits_for_headers and self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None


class Loading:
    """The application that answers until the models are loaded, and then passes everything to theirs."""

    def __init__(self) -> None:
        self.app: FastAPI | None = None
        self._page = page_alone()
        self._meanwhile: ASGIApp = Recorded(self._answer, Metrics())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app or self._meanwhile)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health/live":
            await send_json(send, 200, {"status": "live"})
        elif scope["path"] == "/health":
            await send_json(send, 503, {"status": "loading", "models": {}})
        elif scope["path"] == "/" or scope["path"].startswith("/page/"):
            await self._page(scope, receive, send)
        else:
            await send_json(
                send, 503, {"error": "the models are loading; try again later"}, {"retry-after": _LOADING_RETRY_SECONDS}
            )


class Server(uvicorn.Server):
    """uvicorn's server, which remembers the signal that stopped it instead of raising it again."""

    stopped_by = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second interrupt waits for nothing."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit, self.stopped_by = True, sig


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"electrain serve: {record.getMessage().partition(chr(10))[0]}")


def serve(load: Callable[[], FastAPI], listener: socket.socket, settings: ServeSettings) -> None:
    """Loads the models and answers requests until a signal ends the process.

    Raises: SystemExit: the signal, as elsewhere, once what was accepted is finished. Whatever `load` raises.
    """
    loading, server = Loading(), Server(_configuration(settings))
    server.config.app = loading
    failures: list[BaseException] = []
    address = url_of(listener)

    def load_models() -> None:
        try:
            app = load()
        except BaseException as error:
            failures.append(error)
            server.should_exit = True
            return
        loading.app = app
        say(f"electrain serve: ready at {address}")

    async def run() -> None:
        # A daemon, so that a signal ends the process while models load.
        threading.Thread(target=load_models, daemon=True).start()
        with _hang_up(server):
            await server.serve(sockets=[listener])

    _log_by_say()
    asyncio.run(run())
    if failures:
        raise failures[0]
    code = SIGNAL_OFFSET + server.stopped_by if server.stopped_by else 0
    say("electrain serve: stopped")
    batchers = loading.app.state.batchers.values() if loading.app is not None else ()
    if loading.app is None or any(batcher.is_computing for batcher in batchers):
        os._exit(code)  # Python would wait for the thread, and what it computes is no one's any more
    raise SystemExit(code)


def _configuration(settings: ServeSettings) -> uvicorn.Config:
    protocol = type("Protocol", (TimedProtocol,), {"seconds": settings.body_seconds})
    return uvicorn.Config(
        app="",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=math.ceil(KEEP_ALIVE_SECONDS),
        timeout_graceful_shutdown=math.ceil(settings.max_seconds),
        h11_max_incomplete_event_size=LARGEST_HEADERS_BYTES,
    )


def url_of(listener: socket.socket) -> str:
    """Where a browser finds the service."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def _hang_up(server: Server) -> Iterator[None]:
    """Lets a closed terminal end the service as SIGTERM does, which uvicorn leaves out."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(number, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(number, before)


def _log_by_say() -> None:
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [_OneLine(logging.WARNING)], False
    logger.setLevel(logging.WARNING)
