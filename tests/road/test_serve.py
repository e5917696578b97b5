"""The routes of `electrain serve`: what they answer, what they refuse, who may ask."""

import asyncio
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import electrain
from command_line import command, refuse
from electrain.inference.serve.app import page_alone
from electrain.inference.serve.bodies import TASKS
from electrain.inference.serve.settings import ServeSettings
from service import JSON, answer_to, error_of, with_client
from stand_in import StandIn

Runs = Callable[..., Path]
ALL = {"all": StandIn(tuple(TASKS))}
ONE = {"one": StandIn()}


def test_each_task_has_a_route_with_an_example_that_works() -> None:
    schema = answer_to(ALL, "GET", "/openapi.json").json()
    for task, form in TASKS.items():
        route = schema["paths"][f"/{task}"]["post"]
        body = route["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        (example,) = schema["components"]["schemas"][body]["examples"]
        assert example == {"inputs": [form.example]}
        shown = route["responses"]["200"]["content"]["application/json"]["example"]
        assert shown == {"model": "all", "answers": [form.answer.to_dict()]}
        response = answer_to(ALL, "POST", f"/{task}", json=example)
        assert response.status_code == 200, response.text
        assert response.json()["answers"][0]["text"] == form.example
    # A task that no model can do has no route.
    assert answer_to({"one": StandIn(("embed",))}, "POST", "/tag", json={"inputs": ["a"]}).status_code == 404


def test_answers_are_those_that_predict_prints(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["the cat saw a [MASK] .", "a dog [MASK]"]
    models = {"tiny": electrain.load(tiny_run())}
    for task in ("detect", "fill", "embed"):
        _, printed, _ = command(capsys, "predict", task, *texts, "--model", tiny_run())
        answered = answer_to(models, "POST", f"/{task}", json={"inputs": texts}).json()
        assert answered == {"model": "tiny", "answers": printed}
    (one,) = answer_to(models, "POST", "/fill", json={"inputs": texts[:1], "candidates": 2}).json()["answers"]
    assert len(one["masks"][0]["candidates"]) == 2
    assert answer_to(models, "POST", "/embed", json={"inputs": [" "]}).json()["answers"] == [{"text": ""}]
    refused = answer_to(models, "POST", "/fill", json={"inputs": ["no gap"]})
    assert error_of(refused) == "inputs[0]: holds no gap; write [MASK] where a word is missing"
    # The run has no correction head, so that it cannot be chosen.
    assert answer_to(models, "POST", "/fill", json={"inputs": texts, "by": "generator"}).status_code == 200
    assert answer_to(models, "POST", "/fill", json={"inputs": texts, "by": "correction"}).status_code == 422


def test_the_requests_of_the_document_are_answered() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^curl .*", text, re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        _, url, *more = shlex.split(line)
        path = url.removeprefix("http://127.0.0.1:8765")
        if not more:
            assert answer_to(ALL, "GET", path).status_code == 200, line
            continue
        assert more[:3] == ["-H", "Content-Type: application/json", "-d"]
        response = answer_to(ALL, "POST", path, content=more[3], headers=JSON)
        assert response.status_code == 200, (line, response.text)


def test_options_reach_the_model() -> None:
    options = {"tokens": 3, "temperature": 0.5, "top_p": 1.0, "seed": 7}
    # JSON has one kind of number.
    response = answer_to(ALL, "POST", "/generate", json={"inputs": ["a"], **options, "seed": 7.0, "temperature": 0.5})
    assert type(response.json()["answers"][0]["seed"]) is int
    assert response.json()["answers"] == [{"text": "a", "embedding": [1], **options}]


def test_a_request_chooses_among_models() -> None:
    models = {"first": StandIn(("embed",)), "second": StandIn(("embed", "tag"))}
    named = {"json": {"inputs": ["a"], "model": "second"}}
    assert answer_to(models, "POST", "/embed", json={"inputs": ["a"]}).json()["model"] == "first"
    assert answer_to(models, "POST", "/embed", json={"inputs": ["a"], "model": None}).json()["model"] == "first"
    assert answer_to(models, "POST", "/embed", **named).json()["model"] == "second"
    assert answer_to(models, "POST", "/tag", json={"inputs": ["a"]}).json()["model"] == "second"
    response = answer_to(models, "POST", "/tag", json={"inputs": ["a"], "model": "first"})
    assert response.status_code == 422
    assert error_of(response) == "model: must be 'second'"
    listed = answer_to(models, "GET", "/models").json()["models"]
    assert [(one["name"], one["tasks"]) for one in listed] == [("first", ["embed"]), ("second", ["embed", "tag"])]


@pytest.mark.parametrize(
    ("reads_pairs", "accepted", "refused"),
    [
        (True, [{"text": "a", "pair": "b"}], ["a", {"text": "a"}, {"text": "a", "pair": None}]),
        (False, ["a", {"text": "a"}], [{"text": "a", "pair": "b"}, {"pair": "b"}, 3, None]),
        (None, ["a", {"text": "a"}, {"text": "a", "pair": "b"}], [{"text": "a", "other": "b"}, ["a"]]),
    ],
)
def test_a_classifier_takes_what_it_was_trained_on(
    reads_pairs: bool | None, accepted: list[object], refused: list[object]
) -> None:
    models = {"one": StandIn(("classify",), reads_pairs)}
    for one in accepted:
        assert answer_to(models, "POST", "/classify", json={"inputs": [one]}).status_code == 200, one
    for one in refused:
        assert answer_to(models, "POST", "/classify", json={"inputs": [one]}).status_code == 422, one


@pytest.mark.parametrize(
    ("task", "reads_pairs", "one", "line"),
    [
        ("classify", None, 3, '[0]: must be a text or {"text": ...} or {"text": ..., "pair": ...}'),
        ("classify", None, {"text": 3}, "[0].text: must be a text"),
        ("classify", None, {"txt": "a"}, "[0].text: is missing; add it"),
        ("classify", None, {"text": "a", "pair": 4}, "[0].pair: must be a text"),
        ("classify", None, {"text": "a", "other": "b"}, "[0].other: there is no such field here; leave it out"),
        ("classify", False, {"text": "a", "pair": "b"}, "[0].pair: there is no such field here; leave it out"),
        ("classify", True, "a", '[0]: must be {"text": ..., "pair": ...}'),
        ("classify", True, {"text": "a"}, "[0].pair: is missing; add it"),
        ("answer", None, "who", '[0]: must be {"question": ..., "context": ...}'),
        ("answer", None, {"question": "who"}, "[0].context: is missing; add it"),
        ("tag", None, ["a"], '[0]: must be a text or {"words": [...]}'),
        ("tag", None, {"words": ["a", 3]}, "[0].words[1]: must be a text"),
        ("embed", None, {"text": "a"}, "[0]: must be a text"),
    ],
)
def test_a_refused_input_is_told_by_the_form_that_was_meant(
    task: str, reads_pairs: bool | None, one: object, line: str
) -> None:
    response = answer_to({"one": StandIn((task,), reads_pairs)}, "POST", f"/{task}", json={"inputs": [one]})
    assert (response.status_code, error_of(response)) == (422, f"inputs{line}")


def test_no_line_is_pydantics_own() -> None:
    """Each kind of fault that a body can have is translated: what pydantic says begins with a capital letter."""
    for task, more in (("generate", {"tokens": 0}), ("generate", {"temperature": "a"}), ("generate", {"top_p": 0})):
        response = answer_to(ALL, "POST", f"/{task}", json={"inputs": ["a"], **more})
        assert re.match(r"\w+: must be ", error_of(response))
    response = answer_to(ALL, "GET", "/runs/mine?after_step=x")
    assert error_of(response) == "after_step: must be a whole number"


def test_head_is_answered_as_get_without_the_body() -> None:
    for path in ("/", "/health", "/health/live", "/models", "/metrics", "/page/page.js", "/openapi.json"):
        told, asked = answer_to(ONE, "HEAD", path), answer_to(ONE, "GET", path)
        assert (told.status_code, told.content) == (200, b""), path
        assert told.headers["content-type"] == asked.headers["content-type"]
        if path != "/metrics":
            assert told.headers["content-length"] == str(len(asked.content))
    for method, path, allowed in (
        ("HEAD", "/embed", "POST"),
        ("PUT", "/models", "GET, HEAD"),
        ("GET", "/embed", "POST"),
    ):
        response = answer_to(ONE, method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert answer_to(ONE, "HEAD", "/nothing").status_code == 404


SMALL = ServeSettings(max_inputs=3, max_text_characters=10, max_body_bytes=400, max_written_tokens=64)


@pytest.mark.parametrize(
    ("path", "body", "status", "line"),
    [
        ("/embed", b"", 422, "body: is missing; add it"),
        ("/embed", b"{", 400, "not JSON"),
        ("/embed", b"[" * 300, 400, "not JSON"),
        ("/embed", b'{"inputs": ["\xff"]}', 400, "not JSON"),
        ("/embed", b'{"inputs": [' + b"9" * 350 + b"]}", 422, "inputs[0]: must be a text"),
        ("/embed", b'{"inputs": ["\\ud800"]}', 422, "inputs[0]: holds half of a character"),
        ("/embed", b'{"inputs": ["a"], "\\ud800": 1}', 422, "body: "),
        ("/embed", b'{"inputs": ["a"], "colour": 1}', 422, "colour: there is no such field here; leave it out"),
        ("/embed", b'["a"]', 422, 'body: must be an object such as {"inputs": [...]}'),
        ("/embed", b"null", 422, "body: must be an object"),
        ("/embed", b'{"inputs": "a"}', 422, "inputs: must be a list"),
        ("/embed", b'{"inputs": []}', 422, "inputs: is empty; give at least one"),
        ("/embed", b'{"inputs": ["a", "a", "a", "a"]}', 422, "inputs: holds 4, more than 3; send fewer"),
        ("/embed", b'{"inputs": ["12345678901"]}', 422, "inputs[0]: is longer than 10 characters; shorten it"),
        ("/embed", b'{"inputs": ["refuse me"]}', 422, "inputs[0]: is refused; send another"),
        ("/embed", b'{"inputs": ["a", "refuse me"]}', 422, "inputs[1]: is refused; send another"),
        ("/embed", b'{"inputs": ["' + b"a" * 400 + b'"]}', 413, "more than 400 bytes"),
        ("/generate", b'{"inputs": ["a"], "temperature": NaN}', 422, "temperature: must be a finite number"),
        ("/generate", b'{"inputs": ["a"], "temperature": 1e999}', 422, "temperature: must be a finite number"),
        ("/generate", b'{"inputs": ["a"], "top_p": 1.5}', 422, "top_p: must be at most 1"),
        ("/generate", b'{"inputs": ["a"], "tokens": "5"}', 422, "tokens: must be a whole number"),
        ("/generate", b'{"inputs": ["a"], "tokens": 5.5}', 422, "tokens: must be a whole number"),
        ("/generate", b'{"inputs": ["a"], "seed": 1e300}', 422, "seed: must be below 9007199254740992"),
        ("/generate", b'{"inputs": ["a"], "tokens": true}', 422, "tokens: must be a whole number"),
        ("/generate", b'{"inputs": ["a"], "seed": -1}', 422, "seed: must be at least 0"),
        ("/generate", b'{"inputs": ["a", "b"], "tokens": 40}', 422, "more than 64 tokens"),
        ("/embed", b'{"inputs": ["break"]}', 500, "the model failed"),
        ("/nothing", b"{}", 404, "there is nothing here"),
        ("/health", b"{}", 405, "another method"),
    ],
)
def test_refusals(path: str, body: bytes, status: int, line: str) -> None:
    response = answer_to(ONE, "POST", path, SMALL, content=body, headers=JSON)
    assert response.status_code == status
    assert line in error_of(response)


def test_a_task_that_no_model_can_do_is_said() -> None:
    tags = {"tagger": StandIn(tasks=("tag",))}
    response = answer_to(tags, "POST", "/fill", content=b'{"inputs": ["a [MASK]"]}', headers=JSON)
    assert response.status_code == 404
    assert error_of(response) == "no model of this service can fill; GET /models says what each can do"


def test_the_body_must_be_sent_as_json() -> None:
    """A form on a page elsewhere can send text/plain without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = answer_to(ONE, "POST", "/embed", content=b'{"inputs": ["a"]}', headers={"content-type": kind})
        assert response.status_code == 415
    charset = {"content-type": "Application/JSON; charset=utf-8"}
    assert answer_to(ONE, "POST", "/embed", content=b'{"inputs": ["a"]}', headers=charset).status_code == 200


def test_a_body_in_chunks_has_the_same_limit() -> None:
    async def chunks(count: int) -> Any:
        yield b'{"inputs": ["a'
        for _ in range(count):
            yield b" " * 100
        yield b'"]}'

    settings = ServeSettings(max_body_bytes=400)

    async def both(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post("/embed", content=chunks(count), headers=JSON) for count in (1, 4)]

    accepted, refused = with_client(ONE, both, settings)
    assert "content-length" not in accepted.request.headers
    assert (accepted.status_code, refused.status_code) == (200, 413)
    assert refused.headers["connection"] == "close"  # the rest of the body is no request


def test_a_token_is_asked_for() -> None:
    settings = ServeSettings(token="sesame-1")
    for header in ("", "Bearer", "Bearer wrong", "Basic sesame-1", "sesame-1", "Bearer sesame-1x", "Bearer sésame"):
        more = {"headers": {"authorization": header.encode()}, "json": {"inputs": ["a"]}}
        response = answer_to(ONE, "POST", "/embed", settings, **more)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in error_of(response)
    for path in ("/models", "/metrics", "/openapi.json", "/runs", "/nothing"):
        assert answer_to(ONE, "GET", path, settings).status_code == 401
    for path in ("/health", "/health/live", "/"):
        assert answer_to(ONE, "GET", path, settings).status_code == 200
    for header in ("Bearer sesame-1", "bearer  sesame-1"):
        response = answer_to(ONE, "GET", "/models", settings, headers={"authorization": header})
        assert response.status_code == 200


def test_names_that_point_at_this_machine_are_refused() -> None:
    """A page of evil.example can let that name lead to 127.0.0.1, and would then be of one origin with the service."""
    settings = ServeSettings(hosts=("localhost", "127.0.0.1", "[::1]"))
    for host in ("localhost", "LOCALHOST:8765", "127.0.0.1:1", "[::1]", "[::1]:80"):
        assert answer_to(ONE, "GET", "/models", settings, headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "evil.example:8765", "", "[::2]", "a:b"):
        response = answer_to(ONE, "GET", "/models", settings, headers={"host": host})
        assert response.status_code == 421, host
        assert "--allow-host" in error_of(response)
    assert answer_to(ONE, "GET", "/models", headers={"host": "any.example"}).status_code == 200


def test_other_pages_may_ask_only_if_they_are_named() -> None:
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    preflight = {"headers": asked | {"access-control-request-headers": "authorization,content-type"}}
    response = answer_to(ONE, "OPTIONS", "/embed", **preflight)
    assert response.status_code == 405
    assert "access-control-allow-origin" not in response.headers
    settings = ServeSettings(origins=("https://page.example",), token="t")
    response = answer_to(ONE, "OPTIONS", "/embed", settings, **preflight)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    refused = answer_to(ONE, "GET", "/models", settings, headers={"origin": "https://page.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://page.example"  # so that the page can say why
    other = answer_to(ONE, "GET", "/health", settings, headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_the_page_that_waits_for_models_refuses_in_one_line() -> None:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(page_alone())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/")

    response = asyncio.run(post())
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert "another method" in error_of(response)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    response = answer_to({}, "GET", "/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    for name in ("..%2Fapp.py", "%2e%2e/app.py", "nothing.js", ".", "index.html%00"):
        assert answer_to({}, "GET", f"/page/{name}").status_code == 404
    assert answer_to({}, "GET", "/page/index.html").content == response.content


def test_health_and_metrics_tell_what_happened() -> None:
    model = StandIn(("embed",))

    async def ask(client: httpx.AsyncClient) -> tuple[dict[str, Any], str]:
        await client.post("/embed", json={"inputs": ["a", "b", "c"]})
        await client.post("/embed", json={"inputs": []})
        await client.get("/secret-path")
        for _ in range(3):
            model.is_broken = True
            await client.post("/embed", json={"inputs": ["a"]})
        health = await client.get("/health")
        assert health.status_code == 503
        assert (await client.get("/health/live")).json() == {"status": "live"}
        model.is_broken = False
        await client.post("/embed", json={"inputs": ["a"]})
        assert (await client.get("/health")).json() == {"status": "ready", "models": {"one": "ready"}}
        return health.json(), (await client.get("/metrics")).text

    health, text = with_client({"one": model}, ask)
    assert health == {"status": "failed", "models": {"one": "failed"}}
    for line in (
        'electrain_requests_total{status="200",task="embed"} 2.0',
        'electrain_requests_total{status="422",task="other"} 1.0',
        'electrain_requests_total{status="404",task="other"} 1.0',
        'electrain_requests_total{status="500",task="embed"} 3.0',
        'electrain_request_seconds_count{task="embed"} 5.0',
        'electrain_inputs_total{model="one",task="embed"} 7.0',
        'electrain_batch_inputs_sum{model="one"} 7.0',
        'electrain_queue_inputs{model="one"} 0.0',
    ):
        assert line in text.splitlines(), text
    assert "electrain_tokens_total" in text
    assert "secret" not in text


def test_the_log_has_a_line_for_each_request_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("private words", "break"):
        answer_to(ONE, "POST", "/embed", json={"inputs": [text, "more"]})
    answer_to(ONE, "GET", "/health?private=words")
    lines = capsys.readouterr().err.splitlines()
    first, failed, broken, health = lines
    assert first.startswith("POST /embed 200 ")
    assert first.endswith(" ms, 2 inputs, about 8 tokens")
    assert failed == "electrain serve: one failed: RuntimeError at stand_in.py:47"
    assert broken.startswith("POST /embed 500 ")
    assert health.startswith("GET /health 200 ")
    assert not any(secret in line for line in lines for secret in ("private", "secret"))


def test_reports_of_runs(tiny_run: Runs) -> None:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path) for path in ("/runs", "/runs/mine", "/runs/mine?after_step=3", "/runs/other")]

    names, report, later, absent = with_client({}, ask, runs={"mine": tiny_run()})
    assert names.json() == {"runs": ["mine"]}
    assert report.json()["name"] == "mine"
    assert later.status_code == 200
    assert absent.status_code == 404
    assert "GET /runs" in error_of(absent)
    assert json.loads(report.content)["kind"] == "pretraining"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "nothing to serve; give --model FOLDER or --run FOLDER"),
        (["--model", "absent"], "absent: no such folder"),
        (["--run", "absent"], "absent: no such folder"),
        (["--model", "a/x", "b/x"], "--model: two are called x; name one of them by --model NAME=b/x"),
        (["--model", "x=a/b", "--model", "x=b/a"], "--model: two are called x"),
        (["--model", "=a"], "--model =a: has no name"),
        (["--model", "a/x", "--port", "65536"], "--port 65536: must be between 0 and 65535"),
        (["--model", "a/x", "--max-inputs", "0"], "--max-inputs 0: must be above 0"),
        (["--model", "a/x", "--token-file", "absent"], "--token-file absent: No such file or directory"),
        (["--model", "a/x", "--host", "no such host"], "--host no such host: is no address; give 127.0.0.1"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x", "b/x"):
        (tmp_path / name).mkdir(parents=True)
    assert line in refuse(["serve", *arguments], capsys)


def test_a_token_must_be_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "token"
    for content in (b"", b" \n", b"two words", "schlüssel".encode(), b"a\x00b", b"\xff"):
        path.write_bytes(content)
        line = refuse(["serve", "--model", str(tmp_path), "--port", "0", "--token-file", str(path)], capsys)
        assert f"--token-file {path}: " in line


def test_missing_libraries_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    line = refuse(["serve", "--model", str(tmp_path)], capsys)
    assert 'uvicorn is not installed; run pip install "electrain[serve]"' in line
