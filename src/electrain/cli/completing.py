"""The option `--install-completion`: the shell completes verbs, options and choices."""

from pathlib import Path
from typing import Literal

from electrain.foundation.errors import ConfigurationError
from electrain.foundation.progress import say

Shell = Literal["bash", "zsh", "fish", "powershell"]


def install_completion(*, shell: Shell | None = None, output: Path | None = None) -> None:
    """Let the shell complete verbs, options and choices when Tab is pressed.

    Writes a script to where the shell looks for one, and for bash, zsh and PowerShell a line that loads it to the
    file that the shell starts with.

    Args:
        shell: Shell that completes. By default, the one that this command was given to.
        output: File for the script. With it, nothing else is changed.
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    from electrain.cli.app import app

    try:
        shell = shell or detect_shell()
    except ShellDetectionError as error:
        raise ConfigurationError("this shell is not known; give --shell bash, zsh, fish or powershell") from error
    path = app.install_completion(shell=shell, output=output, add_to_startup=output is None)
    say(f"wrote {path}; start a new {shell} to use it")
    if shell == "zsh" and output is None and not _starts_completion(Path.home() / ".zshrc"):
        # As it comes, also on macOS, zsh completes nothing but file names until compinit has run.
        say("if it does not complete, add this line at the end of ~/.zshrc: autoload -Uz compinit && compinit")


def _starts_completion(zshrc: Path) -> bool:
    """True if the file that zsh starts with runs compinit, or a framework that does."""
    text = zshrc.read_text("utf-8", "replace") if zshrc.is_file() else ""
    return any(name in text for name in ("compinit", "oh-my-zsh", "prezto", "zinit"))
