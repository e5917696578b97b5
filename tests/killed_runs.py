"""Runs that end as if they were killed, inside the test's own process."""

from typing import Any

import pytest

from electrain.pretraining.run import pretrain
from electrain.training import loop


class Killed(BaseException):
    """What stands for a kill inside one process."""


def pretrain_until_killed(monkeypatch: pytest.MonkeyPatch, at: int, *arguments: Any, **named: Any) -> None:
    """Calls `pretrain`, and kills the run in the step after `at`."""
    update = loop._update

    def killed(run: Any, *given: Any, **more: Any) -> None:
        if run.state.step == at:
            raise Killed
        update(run, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_update", killed)
        with pytest.raises(Killed):
            pretrain(*arguments, **named)
