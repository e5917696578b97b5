"""The service inside the test's own process, without a socket."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from electrain.inference.serve.app import create_app
from electrain.inference.serve.batching import Askable
from electrain.inference.serve.settings import ServeSettings

T = TypeVar("T")
JSON = {"content-type": "application/json"}


_apps: dict[object, FastAPI] = {}


def _app(models: Mapping[str, Askable], settings: ServeSettings) -> FastAPI:
    """The service, made once for each set of models and settings: describing its routes takes a tenth of a second."""
    key = (tuple((name, id(model)) for name, model in models.items()), settings)
    if key not in _apps:  # it keeps its models, so that no other ever has their ids
        _apps[key] = create_app(models, settings)
    return _apps[key]


def with_client(
    models: Mapping[str, Askable],
    do: Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]],
    settings: ServeSettings | None = None,
    runs: Mapping[str, Path] | None = None,
) -> T:
    """What `do` returns, given a client of a service with these models."""
    app = _app(models, settings or ServeSettings()) if runs is None else create_app(models, ServeSettings(), runs)

    async def run() -> T:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            return await do(client)

    return asyncio.run(run())


def answer_to(
    models: Mapping[str, Askable], method: str, path: str, settings: ServeSettings | None = None, **more: Any
) -> httpx.Response:
    """The answer to a single request."""
    return with_client(models, lambda client: client.request(method, path, **more), settings)


def error_of(response: httpx.Response) -> str:
    """The one line of a refusal."""
    content = json.loads(response.content)
    assert list(content) == ["error"], content
    assert "\n" not in content["error"]
    return str(content["error"])
