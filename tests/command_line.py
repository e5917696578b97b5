"""The real command line inside the test's own process."""

import json
from typing import Any

import pytest

from electrain.cli.app import VERBS, main


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, the lines of JSON on stdout, and stderr."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    return code, [json.loads(line) for line in shown.out.splitlines()], shown.err


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which the command line refuses; exit code 2, nothing on stdout."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    output = capsys.readouterr()
    assert raised.value.code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith(f"electrain {arguments[0]}: " if arguments[0] in VERBS else "electrain: ")
    return output.err
