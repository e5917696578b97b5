"""The scripts that let a shell complete commands, and the option that installs them."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import refuse
from electrain.cli.app import VERBS, app, main

# Completes the words after the script's path as bash does when Tab is pressed at their end.
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
registered=$(complete -p electrain); name=${registered#*-F }; ${name%% *} electrain "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "electrain"
    main_or_exit("--install-completion", "--shell", "bash", "--output", str(path))
    return path


def main_or_exit(*arguments: str) -> None:
    with contextlib.suppress(SystemExit):  # a command that ran ends without one
        main(list(arguments))


def complete(script: Path, *words: str) -> list[str]:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    ended = subprocess.run([bash, "--norc", "-c", ASK, "ask", str(script), *words], capture_output=True, check=True)
    assert ended.stderr == b""
    return ended.stdout.decode("utf-8").split()


def test_bash_completes_verbs_options_and_choices(script: Path) -> None:
    assert set(complete(script, "electrain", "")) >= set(VERBS)
    assert complete(script, "electrain", "pret") == ["pretrain"]
    assert "--shards" in complete(script, "electrain", "pretrain", "--")
    assert complete(script, "electrain", "pretrain", "--sh") == ["--shards"]
    assert set(complete(script, "electrain", "predict", "")) >= {"detect", "fill", "generate", "summarize"}
    assert complete(script, "electrain", "tokenizer", "--kind", "k") == ["k-mers"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_a_script_with_every_verb(shell: str, tmp_path: Path) -> None:
    main_or_exit("--install-completion", "--shell", shell, "--output", str(tmp_path / "script"))
    written = (tmp_path / "script").read_text("utf-8")
    assert all(verb in written for verb in VERBS)
    if shutil.which(shell) and shell != "powershell":
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_it_is_installed_where_bash_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BASH_VERSION", "5.2")
    monkeypatch.delenv("ZSH_VERSION", raising=False)
    for _ in range(2):
        main_or_exit("--install-completion")
    installed = tmp_path / ".local" / "share" / "bash-completion" / "completions" / "electrain"
    assert installed.is_file()
    assert (tmp_path / ".bashrc").read_text().count(f'. "{installed}"') == 1, "once, however often it is installed"
    assert f"wrote {installed}; start a new bash to use it" in capsys.readouterr().err


def test_a_zsh_that_completes_nothing_by_itself_is_told_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    advice = "add this line at the end of ~/.zshrc: autoload -Uz compinit && compinit"
    main_or_exit("--install-completion", "--shell", "zsh")
    assert advice in capsys.readouterr().err
    with (tmp_path / ".zshrc").open("a") as zshrc:
        zshrc.write("autoload -Uz compinit && compinit\n")
    main_or_exit("--install-completion", "--shell", "zsh")
    assert advice not in capsys.readouterr().err


def test_an_unknown_shell_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from cyclopts.completion import detect

    def fail() -> str:
        raise detect.ShellDetectionError("no")

    monkeypatch.setattr(detect, "detect_shell", fail)
    line = refuse(["--install-completion"], capsys)
    assert "give --shell bash, zsh, fish or powershell" in line
    assert refuse(["--install-completion", "--shell", "tcsh"], capsys).startswith("electrain: --shell tcsh: choose one")


def test_starting_loads_nothing_for_completion() -> None:
    code = "import electrain.cli.app, sys; print([name for name in sys.modules if 'cyclopts.completion' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
    assert "--install-completion" in list(app)
