"""schemathesis asks the service whatever its own OpenAPI allows, and much that it forbids, and finds nothing.

More examples by hand: `python tests/road/test_serve_schema.py EXAMPLES`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import electrain
from electrain.inference.serve.app import create_app
from electrain.inference.serve.batching import Askable
from electrain.inference.serve.settings import ServeSettings
from pretended_answers import ALL_TASKS, Pretender

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is missing: the OpenAPI is not tested")
Runs = Callable[..., Path]
# Small limits, so that it reaches them.
SETTINGS = ServeSettings(max_inputs=3, max_text_characters=20, max_written_tokens=2**20)


def findings(models: dict[str, Askable], runs: dict[str, Path], examples: int) -> tuple[int, list[str]]:
    """The number of requests, and one line for each fault that the checks of schemathesis find."""
    from schemathesis.engine import events, from_schema

    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(models, SETTINGS, runs))
    schema.config.generation.update(max_examples=examples, deterministic=True)
    count, found = 0, []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(str(event))
        if isinstance(event, events.ScenarioFinished):
            count += len(event.recorder.interactions)
            for number, checks in event.recorder.checks.items():
                request = event.recorder.interactions[number].request
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        found.append(f"{check.name}: {request.method} {request.uri} {request.body!r} {failure.message}")
    return count, found


@pytest.mark.parametrize("tasks", [(), ("fill", "generate", "answer")])
def test_the_service_is_as_it_says(tasks: tuple[str, ...], tiny_run: Runs) -> None:
    models: dict[str, Askable] = {"one": Pretender(tasks)} if tasks else {}
    count, found = findings(models, {"mine": tiny_run()}, 3)
    assert count > 20
    assert found == []


def test_a_model_answers_as_the_service_says(tiny_run: Runs) -> None:
    count, found = findings({"tiny": electrain.load(tiny_run())}, {}, 3)
    assert count > 50
    assert found == []


if __name__ == "__main__":
    for models in ({}, {"all": Pretender(ALL_TASKS)}, {"pairs": Pretender(("classify",), True)}):
        count, found = findings(models, {}, int(sys.argv[1]))
        print(list(models), count, "requests", len(found), "faults", *sorted(set(found))[:10], sep="\n")
