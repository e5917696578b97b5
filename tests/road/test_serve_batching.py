"""What the service does with requests that come at once: batches, order, limits, and what one does to the others."""

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

import electrain
from electrain.cli.app import main
from electrain.inference.serve import batching
from electrain.inference.serve.app import create_app
from electrain.inference.serve.settings import ServeSettings
from labelled_files import written
from service import error_of, with_client
from stand_in import StandIn

Runs = Callable[..., Path]
Asked = Sequence[tuple[str, Mapping[str, Any]]]  # the path and the body of each request


def asked_at_once(
    model: StandIn, requests: Asked, settings: ServeSettings | None = None
) -> tuple[list[httpx.Response], list[list[Any]]]:
    """The responses to requests that wait while the model computes another, and the calls of the model after that."""

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        model.calls.clear()
        model.may_answer.clear()
        first = asyncio.create_task(client.post("/embed", json={"inputs": ["first"]}))
        while not model.calls:
            await asyncio.sleep(0.001)
        waiting = []
        for path, body in requests:
            waiting.append(asyncio.create_task(client.post(path, json=body)))
            await asyncio.sleep(0.01)  # so that they arrive in this order
        model.may_answer.set()
        assert (await first).status_code == 200
        return list(await asyncio.gather(*waiting))

    responses = with_client({"one": model}, ask, settings)
    assert model.calls[0] == ["first"]
    return responses, model.calls[1:]


def embed(*texts: str) -> tuple[str, dict[str, Any]]:
    return "/embed", {"inputs": list(texts)}


def test_requests_that_wait_together_go_through_the_model_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine can take a second between two requests, which must not weigh more than their lengths.
    monkeypatch.setattr(batching, "WAIT_SECONDS_PER_TOKEN", 1.0)
    responses, calls = asked_at_once(StandIn(), [embed("a" * 400, "b"), embed("c" * 100), embed("d")])
    assert calls == [["b", "d", "c" * 100, "a" * 400]]
    numbers = [[one["embedding"] for one in response.json()["answers"]] for response in responses]
    assert numbers == [[[4], [1]], [[3]], [[2]]]  # each request got its own answers, in its own order


def test_a_batch_has_a_limit_of_tokens() -> None:
    text = "a" * 392  # about 100 tokens
    settings = ServeSettings(batch_tokens=250)
    _, calls = asked_at_once(StandIn(), [embed(*[text] * 5), embed("a" * 4000)], settings)
    assert [[len(one) for one in call] for call in calls] == [[392] * 2, [392] * 2, [392], [4000]]


def test_a_long_text_lets_short_ones_pass_but_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [embed("l" * 20_000), embed("s"), embed("s" * 40)]
    responses, calls = asked_at_once(StandIn(), requests)
    assert [[len(one) for one in call] for call in calls] == [[1, 40], [20_000]]
    assert {response.status_code for response in responses} == {200}
    # As if the short ones had come long after it.
    monkeypatch.setattr(batching, "WAIT_SECONDS_PER_TOKEN", 1e-9)
    _, calls = asked_at_once(StandIn(), requests)
    assert [[len(one) for one in call] for call in calls] == [[20_000], [1, 40]]


def test_only_equal_questions_share_a_batch() -> None:
    model = StandIn(("embed", "detect", "generate"))
    requests: Asked = [
        ("/detect", {"inputs": ["a"]}),
        ("/detect", {"inputs": ["b"]}),
        ("/generate", {"inputs": ["c", "d"], "seed": 1}),
        ("/generate", {"inputs": ["e"], "seed": 1}),
    ]
    responses, calls = asked_at_once(model, requests)
    # What is drawn depends on the number of the text in its call, so that each request to write has its own.
    assert sorted(calls) == [["a", "b"], ["c", "d"], ["e"]]
    assert [one["embedding"] for one in responses[2].json()["answers"]] == [[1], [2]]
    assert [one["embedding"] for one in responses[3].json()["answers"]] == [[1]]


def test_one_request_cannot_spoil_the_others() -> None:
    requests = [embed("a"), embed("fine", "refuse me"), embed("b"), embed("break"), embed("c")]
    responses, calls = asked_at_once(StandIn(), requests)
    assert [response.status_code for response in responses] == [200, 422, 200, 500, 200]
    assert error_of(responses[1]) == "inputs[1]: is refused; send another"
    assert "secret" not in error_of(responses[3])
    assert sorted(calls[0]) == ["a", "b", "break", "c", "fine", "refuse me"]


def test_the_queue_has_a_limit() -> None:
    settings = ServeSettings(max_waiting_inputs=3)
    responses, calls = asked_at_once(StandIn(), [embed("a", "b"), embed("c", "d"), embed("e")], settings)
    assert [response.status_code for response in responses] == [200, 429, 200]
    assert int(responses[1].headers["retry-after"]) > 0
    assert "try again" in error_of(responses[1])
    assert calls == [["a", "b", "e"]]


def test_requests_have_a_limit_of_time() -> None:
    model = StandIn()

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        model.calls.clear()
        model.may_answer.clear()
        begun = asyncio.create_task(client.post("/embed", json={"inputs": ["begun"]}))
        while not model.calls:
            await asyncio.sleep(0.001)
        waiting = await client.post("/embed", json={"inputs": ["waiting"]})
        # Nobody computes for the event loop: it answers while the model does not.
        assert (await client.get("/health")).status_code == 200
        model.may_answer.set()
        after = await client.post("/embed", json={"inputs": ["after"]})
        return [await begun, waiting, after]

    begun, waiting, after = with_client({"one": model}, ask, ServeSettings(max_seconds=0.3))
    assert [begun.status_code, waiting.status_code, after.status_code] == [504, 503, 200]
    assert int(waiting.headers["retry-after"]) > 0
    assert "within 0.3 seconds" in error_of(begun)
    assert model.calls == [["begun"], ["after"]]


def test_what_nobody_waits_for_is_not_computed(capsys: pytest.CaptureFixture[str]) -> None:
    model = StandIn()
    app = create_app({"one": model}, ServeSettings())
    sent: list[object] = []

    async def request(text: str, leaving: asyncio.Event) -> None:
        body = [{"type": "http.request", "body": json.dumps({"inputs": [text]}).encode()}]

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers, "query_string": b""}
        await app(scope, receive, send)

    async def leave() -> None:
        model.calls.clear()
        model.may_answer.clear()
        stays, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(request("first", stays))
        while not model.calls:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(request("second", leaves))
        await asyncio.sleep(0.01)
        assert app.state.batchers["one"].waiting_inputs == 1
        leaves.set()
        await second
        assert app.state.batchers["one"].waiting_inputs == 0
        model.may_answer.set()
        await first

    asyncio.run(leave())
    assert model.calls == [["first"]]
    assert len(sent) == 2  # the beginning and the body of the one answer
    assert "POST /embed 499 " in capsys.readouterr().err


TAGGED = "the O\ncat B-X\n\na O\ndog B-X\n" * 4
PAIRS = "premise\thypothesis\tlabel\n" + "the cat\ta dog sees\tyes\na dog\tthe cats see\tno\n" * 4
QUESTION = {"id": "1", "question": "who?", "context": "the cat sees", "answers": [{"text": "cat", "answer_start": 4}]}


@pytest.fixture(scope="module")
def models(tiny_run: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, electrain.Predictor]:
    """A pretraining run, a classifier of pairs, a tagger, and a model that answers questions, all tiny."""
    folder = tmp_path_factory.mktemp("served")
    for name, task, file, content in (
        ("pair", "classification", "pair.tsv", PAIRS),
        ("tag", "tagging", "tag.conll", TAGGED),
        ("answer", "question-answering", "answer.jsonl", json.dumps(QUESTION)),
    ):
        path = str(written(folder / file, content))
        files = ["--train", path, "--validation", path, "--output", str(folder / name)]
        brief = ["--training.epochs", "1", "--training.precision", "float32"]
        with pytest.raises(SystemExit) as ended:
            main(["finetune", task, "--model", str(tiny_run()), *files, *brief])
        assert not ended.value.code
    return {"run": electrain.load(tiny_run())} | {
        name: electrain.load(folder / name) for name in ("pair", "tag", "answer")
    }


def test_answers_in_batches_equal_those_alone(models: dict[str, electrain.Predictor]) -> None:
    """Padding changes the order of sums, and so the last digits: numbers are equal within 1e-5."""
    texts = [f"{'the cat sees a dog . ' * count}{ending}" for count in range(4) for ending in ("", "who is happy ?")]
    long = "the quick dog saw an unhappy cat , " * 30
    inputs: dict[str, list[Any]] = {
        "detect": [*texts, long],
        "embed": [*texts, long],
        "fill": [f"{text} [MASK]" for text in texts],
        "classify": [{"text": text, "pair": "a dog " * count} for count, text in enumerate(texts)],
        "tag": [*texts[1:], {"words": ["the", "cat"]}, long],
        "answer": [{"question": "who sees ?", "context": text + " x"} for text in [*texts, long]],
    }
    owners = {task: name for name, model in models.items() for task in model.tasks}
    owners |= dict.fromkeys(("detect", "embed", "fill"), "run")
    requests = [(task, inputs[task][start::3]) for task in inputs for start in range(3)]

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        posts = [client.post(f"/{task}", json={"inputs": own, "model": owners[task]}) for task, own in requests]
        return list(await asyncio.gather(*posts))

    responses = with_client(models, ask)
    for (task, own), response in zip(requests, responses, strict=True):
        assert response.status_code == 200, response.text
        alone = [models[owners[task]].ask(task, [one])[0].to_dict() for one in own]
        if task == "answer":
            alone = [one | {"id": str(number)} for number, one in enumerate(alone, start=1)]
        assert_near(response.json()["answers"], alone)


def assert_near(answer: object, expected: object, tolerance: float = 1e-5) -> None:
    """The same JSON, with numbers within the tolerance."""
    if isinstance(expected, float):
        assert isinstance(answer, float)
        assert math.isclose(answer, expected, abs_tol=tolerance), (answer, expected)
    elif isinstance(expected, dict):
        assert isinstance(answer, dict)
        assert list(answer) == list(expected)
        for name, value in expected.items():
            assert_near(answer[name], value, tolerance)
    elif isinstance(expected, list):
        assert isinstance(answer, list)
        assert len(answer) == len(expected)
        for one, other in zip(answer, expected, strict=True):
            assert_near(one, other, tolerance)
    else:
        assert answer == expected
