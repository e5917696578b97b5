"""The shape of the code: imports point backwards along the road, files and functions stay small, verbs stay."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import electrain
from electrain.cli.app import app

SOURCE = Path(electrain.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"


def road() -> list[str]:
    """The folders in the first list of ARCHITECTURE.md, in its order."""
    first_list = ARCHITECTURE.read_text("utf-8").split("```")[1]
    return [line.split()[0] for line in first_list.strip().splitlines()]


STAGE = {name: number for number, name in enumerate(["__init__", *road()])}
MOST_ROOT_ENTRIES = 8
MOST_PARAMETERS = 7
VERBS = {name for name in app if not name.startswith("-")}
LONGEST_FILE_LINES = 500
LONGEST_FUNCTION_LINES = 60
FROZEN_VERBS = {"demo", "tokenizer", "prepare", "pretrain", "finetune", "evaluate", "predict", "plan"}


def stage_of(path: Path) -> int:
    return STAGE[path.relative_to(SOURCE).parts[0].removesuffix(".py")]


def imported_modules(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name.split(".")[1] for name in names if name.startswith("electrain.")]


def test_the_root_holds_the_road_and_nothing_else():
    found = {path.name for path in SOURCE.iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert found == set(road())
    assert len(found) <= MOST_ROOT_ENTRIES
    assert [name for name in road() if f"{name} " in (electrain.__doc__ or "")] == road(), (
        "the package docstring lists it"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_backwards(path):
    if "presets" in path.parts or path == SOURCE / "__init__.py":
        return
    own = stage_of(path)
    later = [name for name in imported_modules(ast.parse(path.read_text())) if STAGE.get(name, -1) > own]
    assert not later, f"{path.name} imports from later stages: {later}"


def test_the_root_imports_nothing_of_its_own_at_first():
    """Its names come from all stages: type checkers see them, and `__getattr__` imports each when it is first used."""
    statements = ast.parse((SOURCE / "__init__.py").read_text()).body
    for one in statements:
        if not (isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"):
            assert not imported_modules(one)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documentation = node.body[0].end_lineno - node.lineno if ast.get_docstring(node) else 0
            lines = node.end_lineno - node.lineno + 1 - documentation
            assert lines <= LONGEST_FUNCTION_LINES, f"{path.name}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_take_few_parameters(path):
    """At most seven: more are a parcel without a name. A verb's parameters are its options."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (path.parent.name == "cli" or path.name == "verbs.py") and node.name in VERBS:
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            names = [one.arg for one in given if one is not None and one.arg not in ("self", "cls")]
            assert len(names) <= MOST_PARAMETERS, f"{path.name}: {node.name} takes {len(names)}"


def test_the_training_path_imports_nothing_heavy():
    """Shards in, checkpoints out needs torch, numpy, transformers, tokenizers, safetensors and rich alone."""
    allowed = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "rich", "electrain"}
    for folder in ("models", "pretraining/objectives", "training"):
        for path in (SOURCE / folder).glob("*.py"):
            for node in ast.parse(path.read_text()).body:
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                foreign = {name.split(".")[0] for name in names} - allowed - set(__import__("sys").stdlib_module_names)
                assert not foreign, f"{path.name} imports {foreign}"


# Where a kind of network may be called by its name: the table, and the recurrent network, which defines its own.
TABLE = {"models/backbones.py", "models/recurrent.py"}
NAMES = {"electra", "modernbert", "bert", "lstm", "electrain-lstm", "gpt2", "roberta", "deberta-v2"}


def backbones_asked_for(tree: ast.AST) -> list[str]:
    """The lines that name a kind of network, or read `.model_type` for more than a message."""
    in_messages = {id(node) for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for node in ast.walk(text)}
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if id(node) not in in_messages
        and (
            (isinstance(node, ast.Constant) and node.value in NAMES)
            or (isinstance(node, ast.Attribute) and node.attr == "model_type")
            or (isinstance(node, ast.Name) and node.id == "MODEL_TYPE")
        )
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_table_knows_the_backbones_by_name(path):
    if str(path.relative_to(SOURCE)) not in TABLE:
        found = backbones_asked_for(ast.parse(path.read_text()))
        assert not found, f"{path.name}: move this into an entry of BACKBONES: {found}"


def test_a_comparison_with_a_backbone_is_found():
    code = 'if config.model_type == "bert":\n    say(f"{config.model_type} is bert")\nkinds = ("gpt2",)'
    assert len(backbones_asked_for(ast.parse(code))) == 3


def test_the_verbs_are_there():
    assert VERBS >= FROZEN_VERBS


def test_nothing_unpickles():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert "pickle" not in names, f"{path.name} imports pickle"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save"):
                # The one place that converts pickles, which runs no code of theirs.
                is_safe = any(one.arg == "weights_only" and ast.unparse(one.value) == "True" for one in node.keywords)
                if path.name != "conversion.py" or not is_safe:
                    pytest.fail(f"{path.name} unpickles with {ast.unparse(node.func)}")


def test_what_is_imported_is_declared():
    declared = {re.split("[>=<[ ]", one)[0].replace("-", "_") for one in PROJECT["dependencies"]}
    declared |= {"sklearn"} if "scikit_learn" in declared else set()
    chosen = ("tasks", "chinese", "serve", "export")
    extras = {one for extra in chosen for one in PROJECT["optional-dependencies"][extra]}
    optional = {re.split("[>=<[ ]", one)[0].replace("-", "_") for one in extras}
    imported = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"electrain"}
    assert foreign <= declared | optional | {
        "huggingface_hub",
        "pydantic",
        "starlette",
        "wandb",
    }  # transformers and FastAPI choose them; who reports to wandb installs it
    # The scorers are imported by their names when a task asks for them; datasets reads .zst files with zstandard.
    assert declared - foreign == {"scikit_learn", "scipy", "zstandard"}


def test_every_message_passes_one_function():
    """`say` shows control characters as escapes, so that no name in a file can forge a second message."""
    for path in FILES:
        if path.name != "progress.py":
            code = ast.unparse(ast.parse(path.read_text()))
            assert not re.search(r"file=sys\.stderr|stderr\.write|warnings\.warn\(", code), path.name
