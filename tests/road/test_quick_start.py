"""What the processes of `electrain --help` and `electrain predict` load, and that they answer as any other process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import command

TEXT = "the cat saw a dog ."
# Runs the command line as the console script does, then prints the modules that the process has run.
COMMAND = """
import sys
from electrain.cli.app import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
late = {name for name, module in sys.modules.items() if type(module).__name__ == "LateModule"}
print(" ".join(sorted(set(sys.modules) - late)), file=sys.stderr)
"""


def process(*arguments: str) -> tuple[str, set[str]]:
    """The standard output of a command, and the modules that its process ran."""
    ended = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, set(ended.stderr.splitlines()[-1].split())


def test_help_loads_no_library_of_models() -> None:
    for arguments in (["--help"], ["predict", "--help"], ["pretrain", "--help"]):
        _, loaded = process(*arguments)
        assert not loaded & {"torch", "transformers", "numpy", "matplotlib", "datasets", "scipy"}, arguments


@pytest.mark.parametrize(("backbone", "task"), [("electra", "detect"), ("modernbert", "embed")])
def test_an_answer_loads_no_compiler_and_no_tables(
    tiny_run: Callable[..., Path], backbone: str, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unneeded = {"datasets", "matplotlib", "pandas", "pyarrow", "scipy.optimize", "sklearn.metrics", "sympy"}
    compiler = {"torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.distributed.fsdp"}
    arguments = ("predict", task, TEXT, "--model", str(tiny_run(backbone)))
    shown, loaded = process(*arguments)
    assert not loaded & (unneeded | compiler)
    # The test's own process loads everything in the usual way.
    _, expected, _ = command(capsys, *arguments)
    assert [json.loads(shown)] == expected


def test_a_late_module_is_whole_once_more_of_it_is_needed() -> None:
    script = """
from electrain.cli.quick_start import start_sooner
start_sooner()
import sympy, transformers.models
assert type(sympy).__name__ == type(transformers.models).__name__ == "LateModule"
x = sympy.Symbol("x")
assert isinstance(x, sympy.Basic) and str(sympy.diff(x**2, x)) == "2*x"
assert transformers.models.bert.BertConfig().hidden_size == 768
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
