"""The documents say what is so: every command they show is understood, every file they name exists."""

import contextlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from write_field_tables import BEGIN, TABLES, with_tables

from electrain.cli.app import app, main
from electrain.finetuning.configuration import FinetuneConfig
from electrain.foundation.configuration import field_descriptions
from electrain.pretraining.configuration import PretrainConfig, load_configuration, preset_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def commands(document: Path) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for line in "\n".join(blocks).replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"^torchrun .* -m electrain\.cli\.app ", "electrain ", line) for line in lines]
    return [line for line in lines if re.match(r"electrain |.*python benchmarks/", line)]


def links_of(document: Path) -> list[tuple[str, str]]:
    """The file, empty for the document itself, and the heading of each link that does not leave the repository."""
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", document.read_text("utf-8"))
    return [(target, anchor) for target, anchor in links if "://" not in target]


def anchors(document: Path) -> set[str]:
    """The names that headings have in links: lower case, with hyphens for spaces, without punctuation."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


CASES = [(document.name, command) for document in DOCUMENTS for command in commands(document)]


@pytest.mark.parametrize(("document", "command"), CASES)
def test_every_command_is_understood(document, command):
    words = shlex.split(command, comments=True)
    if words[0] != "electrain":
        script = next(word for word in words if word.endswith(".py"))
        known = re.findall(r"\"(--[\w-]+)\"", (ROOT / script).read_text("utf-8"))
        assert not {word for word in words if re.match(r"--[\w-]+$", word)} - {*known}, script
        return
    words = words[1:]
    words = words[: next((number for number, word in enumerate(words) if word in ("|", ">", "2>", "&")), None)]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for target, _ in links_of(document):
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


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_fields_agree_with_the_code(name):
    """Fix it by `python tests/documents/write_field_tables.py`."""
    document = (ROOT / "docs" / name).read_text("utf-8")
    assert BEGIN in document
    assert with_tables(document, TABLES[name]) == document


@pytest.mark.parametrize("kind", TABLES.values())
def test_every_field_is_described_in_sentences(kind):
    for field in field_descriptions(kind):
        assert re.fullmatch(r"[A-Z].{20,}\.", field.text), f"[{field.section}] {field.name}: {field.text!r}"
        for choice in field.choices:
            assert choice in field.text, f"[{field.section}] {field.name} does not explain {choice}"


def test_the_verb_fields_lists_every_field(capsys):
    for verb, kind in (("pretrain", PretrainConfig), ("finetune", FinetuneConfig)):
        with contextlib.suppress(SystemExit):
            main(["fields", verb])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(field_descriptions(kind)) > 30
        for line, field in zip(lines, field_descriptions(kind), strict=True):
            assert line.startswith(f"--{field.section}.{field.name}: ".replace("_", "-"))
            assert field.text in line
            assert line.endswith("[required]" if field.default == "required" else f"[default: {field.default}]")


def test_the_package_says_only_what_is_so():
    """Links are URLs, and every extra but `dev` and `docs` holds libraries that a source file names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert all(target.startswith("https://") for target in project.get("urls", {}).values())
    assert project["classifiers"]
    assert project["keywords"]
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements if extra not in ("dev", "docs") else []:
            module = re.match(r"[\w-]+", requirement)[0].replace("-", "_")
            assert re.search(rf"import {module}|from {module}|[\"']{module}[\"'.]", sources), f"{extra}: {requirement}"
