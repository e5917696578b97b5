"""The documents say what is so: every command they show is understood, every file they name exists."""

import re
import shlex
from pathlib import Path

import pytest

from electrain.cli.app import app
from electrain.pretrain.configuration import load_configuration, preset_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(document: Path) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line.strip().removeprefix("$ ") for line in lines if line.strip().removeprefix("$ ").startswith("electrain ")
    ]


CASES = [(document.name, command) for document in DOCUMENTS for command in commands(document)]


@pytest.mark.parametrize(("document", "command"), CASES)
def test_every_command_is_understood(document, command):
    words = shlex.split(command, comments=True)[1:]
    words = words[: next((number for number, word in enumerate(words) if word in ("|", ">", "2>", "&")), None)]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text("utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_named_file_exists(document):
    for name in re.findall(r"`((?:docs|configs|benchmarks|tests|src)/[\w./-]+\.\w+)`", document.read_text("utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_configuration(name):
    assert load_configuration(name).training.steps > 0


def test_readme_is_short_and_starts_with_the_two_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"^(make \w+)", text, re.MULTILINE)[:2] == ["make demo", "make test"]


def test_the_guide_names_every_field():
    from electrain.cli.training import pretrain_fields

    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")
    for flag in re.findall(r"--([\w-]+\.[\w-]+):", pretrain_fields()):
        field = flag.split(".")[1].replace("-", "_")
        assert f"`{field}`" in guide, f"docs/guide.md does not explain {field}"
