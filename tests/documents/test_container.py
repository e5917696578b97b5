"""The Dockerfile agrees with the project: its files, versions, extras, port and command are those that there are.

Building an image needs an engine and the network; the steps are also in `.ci/package`, which installs the same wheel.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest

from electrain.cli.app import app
from electrain.cli.serving import DEFAULT_PORT, _named

ROOT = Path(__file__).parents[2]
KNOWN = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR")


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what follows it; continued lines are joined, comments left out."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if line[:1] != "#")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.strip().partition(" ") for line in lines)]


def only(name: str) -> str:
    found = [rest for each, rest in instructions() if each == name]
    assert len(found) == 1, name
    return found[0]


def test_every_instruction_is_one() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= set(KNOWN)
    images = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for image in images:
        version = re.fullmatch(r"python:(3\.\d+)-slim", image)
        assert version, image
        assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    sources = {source for each in copied for source in each}
    assert sources == kept, "all else is ignored"
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"pyproject.toml", "src", project["readme"], *project["license-files"]} <= sources


def test_it_installs_what_the_makefile_does_and_extras_that_there_are() -> None:
    run = "\n".join(rest for name, rest in instructions() if name == "RUN")
    (torch,) = re.findall(r"torch==\S+", run)
    assert torch in (ROOT / "Makefile").read_text("utf-8")
    assert f"\n{torch}\n" in (ROOT / "constraints.txt").read_text("utf-8")
    (extras,) = re.findall(r"\[([\w,]+)\]", run)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(extras.split(",")) == {"serve", "export"} <= set(project["optional-dependencies"])


def test_it_runs_the_service_as_an_ordinary_user() -> None:
    command = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    assert command[0] == "electrain"
    verb, bound, _ = app.parse_args(command[1:], exit_on_error=False, print_error=False)
    assert verb.__name__ == "serve"
    assert bound.arguments["host"] == "0.0.0.0"
    assert bound.arguments["port"] == int(only("EXPOSE")) == DEFAULT_PORT
    # A folder at the root of the disk called `model` has no parent to be named after.
    assert _named("model", bound.arguments["model"]) == {"model": "/model"}
    names = [name for name, _ in instructions()]
    assert only("USER") not in ("root", "0")
    assert names.index("USER") > len(names) - names[::-1].index("RUN") - 1, "nothing is installed as that user"


def test_its_health_is_asked_where_the_service_tells_it() -> None:
    check = only("HEALTHCHECK")
    arguments = json.loads(check[check.index("CMD") + 4 :])
    assert arguments[:2] == ["python", "-c"]
    compile(arguments[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{only('EXPOSE')}/health'" in arguments[2]
    pytest.importorskip("fastapi")
    from electrain.inference.serve.app import create_app
    from electrain.inference.serve.settings import ServeSettings

    assert "/health" in {getattr(route, "path", "") for route in create_app({}, ServeSettings()).routes}


def test_a_model_at_the_root_of_the_disk_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/model")
    assert _named("model", ["/model"]) == {"model": "/model"}
