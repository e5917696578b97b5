"""What every request passes: the log line and the counters, then the checks of who asks and of how much is sent.

Plain ASGI, because these must hold for requests that no route will see.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electrain.foundation.json_output import to_json
from electrain.foundation.progress import counted, say
from electrain.inference.serve.batching import place_of
from electrain.inference.serve.metrics import Metrics
from electrain.inference.serve.settings import ServeSettings

# Not an HTTP status: what servers commonly log for a client that left before its answer.
CLIENT_GONE = 499
# Everything that a page loads or asks must come from the service itself.
CONTENT_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_LONGEST_PATH = 80  # characters of a path in the log


@dataclass
class Exchange:
    """What is said of a request when it ends."""

    inputs: int = 0
    tokens: int = 0
    status: int = 0
    task: str = "other"  # "other": no task's route
    is_read: bool = False  # True once the whole body was read


class ClientGoneError(Exception):
    """The client has closed the connection."""


class TurnedAwayError(Exception):
    """A request that reaches no route."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.headers = status, line, headers or {}


async def send_json(send: Send, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
    """Answers with a value as JSON."""
    body = to_json(value).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), text.encode()) for name, text in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class Recorded:
    """The outermost layer: one log line and one count for each request, and no traceback for anybody."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange, started = Exchange(), time.perf_counter()
        scope.setdefault("state", {})["exchange"] = exchange
        is_head = scope["method"] == "HEAD"  # asks for what GET answers, without the body

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if not exchange.is_read:  # the rest of the body would be taken for the next request
                    headers["connection"] = "close"
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app({**scope, "method": "GET"} if is_head else scope, receive, send_on)
        except ClientGoneError:
            exchange.status = CLIENT_GONE
        except Exception as error:
            say(f"electrain serve: {scope['method']} {scope['path'][:_LONGEST_PATH]} failed: {place_of(error)}")
            if not exchange.status:
                await send_json(send_on, 500, {"error": "the service failed; its log says where"})
        finally:
            self._record(scope, exchange, time.perf_counter() - started)

    def _record(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        status = exchange.status or CLIENT_GONE
        self.metrics.requests.labels(exchange.task, str(status)).inc()
        self.metrics.seconds.labels(exchange.task).observe(seconds)
        inputs, tokens = counted(exchange.inputs, "input"), counted(exchange.tokens, "token")
        sizes = f", {inputs}, about {tokens}" if exchange.inputs else ""
        say(f"{scope['method']} {scope['path'][:_LONGEST_PATH]} {status} {seconds * 1000:.0f} ms{sizes}")


class Guarded:
    """Turns requests away before a route sees them, and reads their bodies within limits of size and time."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._require_host(headers)
            self._require_token(scope, headers)
            body = await self._body(headers, receive)
            scope["state"]["exchange"].is_read = True
            if body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise TurnedAwayError(415, "the body must be JSON; send the header Content-Type: application/json")
            await self._passed_on(scope, body, receive, send)
        except TurnedAwayError as refusal:
            await send_json(send, refusal.status, {"error": refusal.line}, refusal.headers)

    def _require_host(self, headers: Headers) -> None:
        """A page elsewhere can let its own name point at this machine (DNS rebinding); the Host header tells."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.settings.hosts and name.lower() not in self.settings.hosts:
            raise TurnedAwayError(
                421, "the Host header names another machine; start the service with --allow-host NAME"
            )

    def _require_token(self, scope: Scope, headers: Headers) -> None:
        """All but the health, the page and its assets, which hold nothing of a model or a run."""
        path = scope["path"]
        if not self.settings.token or path in ("/", "/health", "/health/live") or path.startswith("/page/"):
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("utf-8"), self.settings.token.encode("utf-8"))
        if kind.lower() != "bearer" or not is_right:
            line = "the service asks for a token; send the header Authorization: Bearer TOKEN"
            raise TurnedAwayError(401, line, {"www-authenticate": "Bearer"})

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most = self.settings.max_body_bytes
        too_large = TurnedAwayError(413, f"the body has more than {most} bytes; send fewer texts in each request")
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            line = f"the body did not arrive within {self.settings.body_seconds:g} seconds; send it faster"
            raise TurnedAwayError(408, line) from None

    async def _passed_on(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Lets the routes answer, and stops them when the client goes."""
        is_given = False

        async def given() -> Message:
            nonlocal is_given
            if is_given:
                await asyncio.Event().wait()  # for the cancellation; routes are not asked to watch the client
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        answering, leaving = asyncio.ensure_future(self.app(scope, given, send)), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ClientGoneError
            answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
