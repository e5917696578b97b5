"""The verb `push`, and what `--push-to-hub` does before and after the work of other verbs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from electrain.cli.options import print_json
from electrain.foundation.errors import HubError
from electrain.foundation.progress import say

if TYPE_CHECKING:
    from electrain.foundation.card import CardConfig


def push(source: Path, /, *, to: str, public: bool = False) -> None:
    """Put a model into a repository of the Hugging Face hub.

    The repository is made if there is none, and is private unless --public is given. One that is there keeps its
    visibility. All files go into one commit.

    Args:
        source: Folder of a run, a model or an export. The model of a run becomes the repository itself; its other
            networks, such as the generator, become folders in it.
        to: Name of the repository, OWNER/NAME.
        public: Let everybody read a repository that is made here.
    """
    from electrain.foundation.publishing import push_folder

    print_json({"source": str(source), "pushed_to": push_folder(source, to, public=public)})


def require_pushable(repository: str | None, card: "CardConfig") -> None:
    """Before the work: raises HubError if the repository could not be pushed to afterwards. The first process asks."""
    if repository is not None and os.environ.get("RANK", "0") == "0":
        from electrain.foundation.card import front_matter
        from electrain.foundation.publishing import require_repository

        require_repository(repository, front_matter(card))


def push_result(verb: str, source: Path, repository: str | None) -> None:
    """After the work, in the first process: pushes it, or says how to push it again and ends with exit code 1."""
    if repository is None:
        return
    from electrain.foundation.publishing import how_to_push_again, push_folder

    try:
        say(f"pushed to {push_folder(source, repository)}")
    except HubError as error:
        say(f"electrain {verb}: {error}. The model is in {source}; `{how_to_push_again(source, repository)}` pushes it")
        raise SystemExit(1) from None
