"""The verb `serve`: answers requests over HTTP."""

import importlib.util
import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from electrain.cli.options import Files, Number, Whole
from electrain.foundation.errors import ConfigurationError, DataError
from electrain.foundation.hub import require_source
from electrain.foundation.progress import say

if TYPE_CHECKING:
    from fastapi import FastAPI

    from electrain.inference.predictor import Predictor

DEFAULT_PORT = 8765
TOKEN_VARIABLE = "ELECTRAIN_TOKEN"
LONGEST_TOKEN = 1000
MOST_PORT = 65535


def serve(
    *,
    model: Files | None = None,
    run: Files | None = None,
    host: str = "127.0.0.1",
    port: Whole = DEFAULT_PORT,
    token_file: Path | None = None,
    allow_origin: Files | None = None,
    allow_host: Files | None = None,
    max_inputs: Whole = 256,
    max_text_characters: Whole = 20_000,
    max_body_bytes: Whole = 2**21,
    max_written_tokens: Whole = 2048,
    max_waiting_inputs: Whole = 4096,
    max_seconds: Number = 30.0,
    batch_tokens: Whole = 2048,
) -> None:
    """Answer requests over HTTP, and show a page.

    There is a route for each task that the models can do, such as POST /classify. GET /openapi.json describes them all.
    SIGTERM or Ctrl+C finishes the requests that were accepted.

    Args:
        model: Run folder, model folder, exported folder or hub id, or NAME=FOLDER. Without a NAME, a model is called
            after its folder. Several can be given. By default, no model answers.
        run: Run folder, or NAME=FOLDER, whose report is shown while it trains. Several can be given. By default,
            none.
        host: Address to listen at. By default, only this machine can ask; 0.0.0.0 lets its network ask.
        port: Port to listen at; 0 takes any free one.
        token_file: File that holds the token which requests must carry as "Authorization: Bearer TOKEN". By default,
            the variable ELECTRAIN_TOKEN is the token, and without it none is asked for.
        allow_origin: Origins of other web pages that may ask, such as https://example.org. By default, none.
        allow_host: Names under which the service is reached through a proxy. By default, a service for this machine
            alone answers to localhost and its address, and one for the network to any name.
        max_inputs: Largest number of inputs in a request.
        max_text_characters: Largest number of characters in a text.
        max_body_bytes: Largest size of a request.
        max_written_tokens: Largest number of tokens that `generate` writes for a request.
        max_waiting_inputs: Largest number of inputs that wait for a model.
        max_seconds: Longest time that a request takes, and longest time that a shutdown waits for.
        batch_tokens: Tokens of waiting inputs that go through a model together. A longer text goes alone.
    """
    from electrain.inference.serve.runs import require_run

    for flag, value in (
        ("max-inputs", max_inputs),
        ("max-text-characters", max_text_characters),
        ("max-body-bytes", max_body_bytes),
        ("max-written-tokens", max_written_tokens),
        ("max-waiting-inputs", max_waiting_inputs),
        ("max-seconds", max_seconds),
        ("batch-tokens", batch_tokens),
    ):
        if value <= 0:
            raise ConfigurationError(f"--{flag} {value}: must be above 0")
    if not 0 <= port <= MOST_PORT:
        raise ConfigurationError(f"--port {port}: must be between 0 and {MOST_PORT}")
    models, runs = _named("model", model or []), _named("run", run or [])
    if not models and not runs:
        raise ConfigurationError("nothing to serve; give --model FOLDER or --run FOLDER")
    for source in models.values():
        require_source(source)
    for folder in runs.values():
        require_run(Path(folder))
    _require_extra()
    from electrain.inference.serve.server import listen, serve
    from electrain.inference.serve.settings import ServeSettings

    listener = listen(host, port)
    address = ipaddress.ip_address(listener.getsockname()[0])
    hosts = [name.lower() for name in allow_host or ()]
    if address.is_loopback or hosts:
        hosts += ["localhost", "127.0.0.1", "[::1]", f"[{address}]" if address.version == 6 else str(address)]
    settings = ServeSettings(
        max_inputs=max_inputs,
        max_text_characters=max_text_characters,
        max_body_bytes=max_body_bytes,
        max_written_tokens=max_written_tokens,
        max_waiting_inputs=max_waiting_inputs,
        max_seconds=max_seconds,
        batch_tokens=batch_tokens,
        token=_token(token_file),
        origins=tuple(allow_origin or ()),
        hosts=tuple(hosts),
    )
    if not address.is_loopback and not settings.token:
        say("electrain serve: whoever reaches this machine can ask; --token-file asks them for a token")

    def load() -> "FastAPI":
        from electrain.inference.serve.app import create_app

        return create_app(_loaded(models), settings, {name: Path(folder) for name, folder in runs.items()})

    serve(load, listener, settings)


def _named(option: str, given: Sequence[str]) -> dict[str, str]:
    """The folders by their names: NAME of NAME=FOLDER, else the folder's own, or its parent's for RUN/model.

    Raises: ConfigurationError: two of one name.
    """
    named: dict[str, str] = {}
    for one in given:
        name, has_name, folder = one.partition("=")
        if not has_name or "/" in name or Path(one).exists():
            path = Path(one).resolve() if Path(one).exists() else Path(one)
            name, folder = (path.parent.name or path.name) if path.name == "model" else path.name, one
        if name in named:
            raise ConfigurationError(f"--{option}: two are called {name}; name one of them by --{option} NAME={one}")
        if not name:
            raise ConfigurationError(f"--{option} {one}: has no name; write --{option} NAME={one}")
        named[name] = folder
    return named


def _token(path: Path | None) -> str:
    """The token that requests must carry; "" if none is asked for."""
    if path is None:
        token, where = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if token is None:
            return ""
    else:
        where = f"--token-file {path}"
        try:
            token = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise DataError(f"{where}: {reason}; give a file that holds the token") from None
    token = token.strip()
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise DataError(f"{where}: holds no token; write one line of letters and digits, without spaces")
    return token


def _require_extra() -> None:
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(module) is None:
            raise ConfigurationError(f'{module} is not installed; run pip install "electrain[serve]"')


def _loaded(models: Mapping[str, str]) -> dict[str, "Predictor"]:
    """The predictors."""
    if not models:  # the reports of runs need no torch
        return {}
    from electrain.inference.predictor import load

    return {name: load(folder) for name, folder in models.items()}
