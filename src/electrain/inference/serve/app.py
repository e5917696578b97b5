"""The service's routes: one for each task that the loaded models can do, and those that tell about the service."""

import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from electrain import __version__
from electrain.foundation.errors import CheckpointError, DataError, ElectrainError, RunDirectoryError
from electrain.foundation.json_output import to_json
from electrain.inference.serve.batching import (
    Askable,
    Batcher,
    Input,
    ModelFailedError,
    QueueFullError,
    RefusedError,
    TooSlowError,
    share_cores,
    tokens_of,
)
from electrain.inference.serve.bodies import (
    GAPS,
    TASKS,
    Alive,
    Facts,
    Health,
    Models,
    Refusal,
    Runs,
    answers_body,
    example_of,
    request_body,
)
from electrain.inference.serve.faults import fault_line
from electrain.inference.serve.guard import Guarded, Recorded
from electrain.inference.serve.metrics import Metrics
from electrain.inference.serve.runs import RunReport, report_of
from electrain.inference.serve.settings import ServeSettings

PAGE = Path(__file__).parent / "page"
_PAGE_TYPES = {".html", ".css", ".js", ".svg", ".png", ".ico", ".json", ".woff2"}
NOT_JSON = "the body is not JSON in UTF-8, or it is nested too deep"
_RETRY_SECONDS = "1"
FILLERS = ("generator", "correction")
# What each of these statuses means, for OpenAPI.
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in (
        (400, "The body is not JSON."),
        (401, "The service asks for a token."),
        (404, "There is nothing of this name."),
        (405, "The route has another method."),
        (408, "The body did not arrive in time."),
        (413, "The body is too large."),
        (415, "The body is not sent as JSON."),
        (421, "The Host header names another machine."),
        (422, "The body does not fit, or the model cannot take an input."),
        (429, "Too many inputs wait; try again after the seconds in Retry-After."),
        (500, "The model or the service failed."),
        (503, "Not ready, or no answer was begun in time; try again after the seconds in Retry-After."),
        (504, "The answer was begun, and took too long."),
    )
}


def create_app(
    models: Mapping[str, Askable], settings: ServeSettings, runs: Mapping[str, Path] | None = None
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        models: predictors by their names; the first one that can do a task answers where a request names none.
        runs: folders of runs by their names, whose live reports are shown.
    """
    metrics = Metrics()
    batchers = {name: Batcher(name, predictor, settings, metrics) for name, predictor in models.items()}
    share_cores(len(batchers))
    app = FastAPI(title="electrain", version=__version__, docs_url=None, redoc_url=None, responses=_REFUSALS)
    app.state.batchers = batchers
    facts = {name: facts_of(predictor) for name, predictor in models.items()}
    for task in TASKS:
        able = {name: batcher for name, batcher in batchers.items() if task in batcher.predictor.tasks}
        if able:
            _add_task(app, task, able, facts, settings)
    _add_facts(app, batchers, facts, metrics)
    _add_page(app)
    _add_runs(app, runs or {})
    app.openapi()  # which is kept; it takes a tenth of a second
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.add_exception_handler(HTTPException, _refuse_request)
    app.add_middleware(Guarded, settings=settings)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    app.add_middleware(Recorded, metrics=metrics)
    return app


def page_alone() -> FastAPI:
    """The page without models, for a browser that comes while they load; it asks again until they are there."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_page(app)
    app.add_exception_handler(HTTPException, _refuse_request)
    return app


def facts_of(predictor: Askable) -> Facts:
    """What a model takes, found by asking for each of its tasks once: it is read now, and not by the first request.

    Raises: CheckpointError: its folder is damaged.
    """
    reads_pairs, gap, fillers = predictor.reads_pairs, GAPS[0], []
    if "fill" in predictor.tasks:
        gap = next((one for one in GAPS if _can(predictor, "fill", one, DataError)), gap)
        fillers = [by for by in FILLERS if _can(predictor, "fill", gap, CheckpointError, by=by)]
    facts = Facts(reads_pairs, gap, tuple(fillers))
    for task in predictor.tasks:
        if task in TASKS:
            predictor.ask(task, [example_of(task, facts)])
    return facts


def _can(predictor: Askable, task: str, text: str, refusal: type[ElectrainError], **options: object) -> bool:
    try:
        predictor.ask(task, [text], **options)
    except refusal:
        return False
    return True


def _add_task(
    app: FastAPI, task: str, batchers: Mapping[str, Batcher], facts: Mapping[str, Facts], settings: ServeSettings
) -> None:
    """Adds `POST /{task}`, answered by one of these models."""
    form, first = TASKS[task], next(iter(batchers))

    async def ask(request: Request, body: BaseModel) -> Response:
        given = body.model_dump(exclude_none=True)
        inputs: list[Input] = given.pop("inputs")
        name = given.pop("model", first)
        exchange = request.state.exchange
        exchange.task, exchange.inputs, exchange.tokens = task, len(inputs), sum(map(tokens_of, inputs))
        if given.get("tokens", 0) * len(inputs) > settings.max_written_tokens:
            most = settings.max_written_tokens
            raise HTTPException(422, f"more than {most} tokens would be written; ask for fewer, or send fewer inputs")
        options = tuple(sorted(given.items()))
        try:
            answers = await batchers[name].ask(task, inputs, options, is_whole=form.is_whole)
        except RefusedError as error:
            raise HTTPException(422, str(error)) from None
        except ModelFailedError:
            raise HTTPException(500, "the model failed; the log of the service says where") from None
        except QueueFullError:
            raise HTTPException(429, "too many inputs wait; try again later", {"Retry-After": _RETRY_SECONDS}) from None
        except TooSlowError as error:
            limit = f"within {settings.max_seconds:g} seconds"
            if error.is_begun:
                raise HTTPException(504, f"no answer {limit}; send fewer or shorter texts") from None
            line = f"the model is busy and did not begin {limit}; try again later"
            raise HTTPException(503, line, {"Retry-After": _RETRY_SECONDS}) from None
        content = f'{{"model": {to_json(name)}, "answers": [{", ".join(answers)}]}}'
        return Response(content, media_type="application/json")

    ask.__name__ = task
    ask.__annotations__["body"] = request_body(task, {name: facts[name] for name in batchers}, settings)
    example = {"model": first, "answers": [form.answer.to_dict()]}
    shown: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": example}}}}
    app.post(f"/{task}", summary=form.summary, response_model=answers_body(task), responses=shown)(ask)


def _add_facts(app: FastAPI, batchers: Mapping[str, Batcher], facts: Mapping[str, Facts], metrics: Metrics) -> None:
    """Adds the routes that tell about the service."""

    @app.get("/health", summary="Whether the service can answer.", response_model=Health)
    async def health() -> JSONResponse:
        states = {name: "failed" if batcher.has_failed else "ready" for name, batcher in batchers.items()}
        status = "failed" if "failed" in states.values() else "ready"
        return JSONResponse({"status": status, "models": states}, 503 if status == "failed" else 200)

    @app.get("/health/live", summary="That the service is alive.", response_model=Alive)
    async def live() -> JSONResponse:
        return JSONResponse({"status": "live"})

    @app.get("/models", summary="The models and their tasks.", response_model=Models)
    async def models() -> JSONResponse:
        known = [
            {
                "name": name,
                "tasks": [task for task in batcher.predictor.tasks if task in TASKS],
                "reads_pairs": facts[name].reads_pairs,
                "gap": facts[name].gap,
            }
            for name, batcher in batchers.items()
        ]
        return JSONResponse({"models": known})

    @app.get("/metrics", summary="Counters for Prometheus.", response_class=PlainTextResponse)
    async def counters() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    """Adds the page and its assets. Only files that were there at the start are given out."""
    files = {path.name: path for path in PAGE.iterdir() if path.suffix in _PAGE_TYPES} if PAGE.is_dir() else {}

    def sent(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file of the page")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(files[name].read_bytes(), media_type=kind)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return sent("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return sent(name)


def _add_runs(app: FastAPI, runs: Mapping[str, Path]) -> None:
    """Adds the live reports of runs."""

    @app.get("/runs", summary="The runs whose reports are shown.", response_model=Runs)
    async def names() -> JSONResponse:
        return JSONResponse({"runs": list(runs)})

    # No coroutine, so that it reads files on another thread.
    @app.get("/runs/{name}", summary="What a run has done so far.")
    def report(name: str, after_step: Annotated[int, Query(ge=0, lt=2**53)] = 0) -> RunReport:
        if name not in runs:
            raise HTTPException(404, "there is no run of this name; GET /runs lists them")
        try:
            return report_of(name, runs[name], after_step)
        except RunDirectoryError:
            raise HTTPException(404, "the folder of the run is gone") from None


class _Json(JSONResponse):
    """JSON that UTF-8 can encode whatever a client sent."""

    def render(self, content: object) -> bytes:
        return to_json(content).encode()


async def _refuse_body(request: Request, error: Exception) -> _Json:
    """The first fault of a body; never its text."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    if faults and faults[0]["type"] == "json_invalid":
        return _Json({"error": NOT_JSON}, 400)
    return _Json({"error": fault_line(faults, request.url.path.strip("/"))}, 422)


async def _refuse_request(request: Request, error: Exception) -> _Json:
    if not isinstance(error, HTTPException):
        raise error
    # What Starlette and FastAPI say by themselves, in our words.
    lines = {400: NOT_JSON, 405: "the route has another method; GET /openapi.json describes it"}
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"  # which `Recorded` answers
    if error.detail == "Not Found":
        task = request.url.path.strip("/")
        if task in TASKS:
            lines[404] = f"no model of this service can {task}; GET /models says what each can do"
        else:
            lines[404] = "there is nothing here; GET /openapi.json lists the routes"
    return _Json({"error": lines.get(error.status_code, error.detail)}, error.status_code, headers)
