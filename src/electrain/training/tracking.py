"""Trackers that draw the curves of a run elsewhere: TensorBoard, and Weights & Biases, fed as the journal is."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from electrain.foundation.configuration import Tables
from electrain.foundation.errors import ConfigurationError, first_line
from electrain.foundation.output_folder import write_text_durably
from electrain.foundation.progress import say
from electrain.training.settings import TrackerName

State = Literal["finished", "stopped", "failed"]
TENSORBOARD_FOLDER = "tensorboard"
# The name by which Weights & Biases knows the run, so that a resumed run goes on with the same curves.
WANDB_NAME = "wandb.json"
# The events of a journal whose numbers make curves, and the name of their group.
_GROUPS = {"log": "train", "probe": "train", "validation": "validation"}


class Tracker(Protocol):
    """What a sitting tells a tracker. Only the first process has one, and whatever it raises ends the tracking only."""

    def start(self, config: Tables) -> None:
        """The sitting begins. Args: config: the sections of the run's configuration."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after a step, by names such as "train/loss"."""

    def finish(self, state: State) -> None:
        """The sitting is over."""


class TensorBoard:
    """Event files in the folder `tensorboard` of the run.

    Args:
        directory: the run folder.
        begun: the step that the sitting begins at. What an earlier sitting logged after it is logged again.
        logged: the last step that an earlier sitting logged; 0 if there was none.
    """

    def __init__(self, directory: Path, begun: int, logged: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._is_new = not logged
        # The writer opens its file at once, with the mark that makes TensorBoard forget the steps that come again.
        self._writer = SummaryWriter(str(directory / TENSORBOARD_FOLDER), purge_step=begun + 1)  # type: ignore[no-untyped-call]

    def start(self, config: Tables) -> None:
        if self._is_new:
            text = json.dumps(config, indent=2, ensure_ascii=False)
            self._writer.add_text("configuration", f"```json\n{text}\n```")  # type: ignore[no-untyped-call]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        # What a killed process had not written, a resumed run would not write either.
        self._writer.flush()  # type: ignore[no-untyped-call]

    def finish(self, state: State) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


class WeightsAndBiases:
    """A run of Weights & Biases, in the project that WANDB_PROJECT names, or else "electrain".

    Its steps can only rise, so that a resumed run leaves out those that an earlier sitting logged: they come again
    with the same values.

    Args: as of `TensorBoard`.
    """

    def __init__(self, directory: Path, begun: int, logged: int) -> None:
        del begun
        self._directory, self._logged = directory, 0
        path = directory / WANDB_NAME
        if path.is_file():
            self._name, self._logged = str(json.loads(path.read_text("utf-8"))["id"]), logged
        else:
            self._name = secrets.token_hex(8)
            write_text_durably(path, json.dumps({"id": self._name}) + "\n")

    def start(self, config: Tables) -> None:
        import wandb

        project = wandb.setup().settings.project or "electrain"
        # Without `resume`, a second sitting would overwrite the curves of the first.
        self._run = wandb.init(
            project=project,
            name=self._directory.name,
            dir=str(self._directory),
            config=config,
            id=self._name,
            resume="allow",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._logged:
            self._run.log(dict(values), step=step)

    def finish(self, state: State) -> None:
        self._run.finish(exit_code=int(state == "failed"))


# What each tracker is made with, the module that it needs, and how that is installed.
_TRACKERS: dict[TrackerName, Callable[[Path, int, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
_INSTALLED_BY: dict[TrackerName, str] = {
    "tensorboard": 'pip install "electrain[track]"',
    "wandb": "pip install wandb",
}


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raises ConfigurationError if a tracker is not installed, or would ask for a password when the run begins."""
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # without an origin it is a folder of that name, which trackers leave
            raise ConfigurationError(
                f'[training] report_to = "{name}": {name} is not installed; run `{_INSTALLED_BY[name]}`, or leave it '
                "out of report_to"
            )
    if "wandb" in names:
        _require_wandb_account()


def _require_wandb_account() -> None:
    import wandb

    if wandb.setup().settings.mode in ("offline", "disabled"):
        return
    # `wandb.init` would ask for the key on standard input, where nobody may be.
    if not wandb.login(prompt=False, verify=False):
        raise ConfigurationError(
            '[training] report_to = "wandb": no account is known here; run `wandb login`, or set WANDB_MODE=offline'
        )


class Tracking:
    """The trackers of one sitting. One that fails is left out with a warning, and the training goes on.

    Args:
        names: the trackers; none in processes that write nothing.
        directory, begun, logged: see `TensorBoard`.
    """

    def __init__(self, names: Sequence[TrackerName], directory: Path, begun: int, logged: int) -> None:
        self._trackers: dict[TrackerName, Tracker] = {}
        for name in names:
            self._safely(name, lambda name=name: self._add(name, directory, begun, logged))  # type: ignore[misc]

    def _add(self, name: TrackerName, directory: Path, begun: int, logged: int) -> None:
        self._trackers[name] = _TRACKERS[name](directory, begun, logged)

    def start(self, config: Tables) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.start(config))

    def log(self, line: Mapping[str, object]) -> None:
        """Passes the numbers of a journal's line on. Args: line: its `event` and `step` say where they belong."""
        group, step = _GROUPS.get(str(line.get("event"))), line.get("step")
        if group is None or not isinstance(step, int):
            return
        values = {
            f"{group}/{name}": float(value)
            for name, value in line.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
        }
        self._each(lambda tracker: tracker.log(step, values))

    def finish(self, state: State) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.finish(state))

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._safely(name, lambda tracker=tracker: action(tracker))  # type: ignore[misc]

    def _safely(self, name: TrackerName, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a tracker has a network, a disk and code of its own
            self._trackers.pop(name, None)
            told = first_line(error)[:200].rstrip(".") or type(error).__name__
            say(f"warning: {name} failed ({told}); the training goes on without it")
