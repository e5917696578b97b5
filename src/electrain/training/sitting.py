"""One sitting of a run, from its beginning or a checkpoint until it stops, for pretraining and fine-tuning."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic

from electrain.foundation.configuration import read_toml
from electrain.foundation.errors import CheckpointError
from electrain.foundation.output_folder import CONFIGURATION_NAME, JOURNAL_NAME, file_hash
from electrain.foundation.progress import Progress, say
from electrain.training.checkpoint import (
    STATE_NAME,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    one_line_of,
    save_checkpoint,
)
from electrain.training.journal import Journal
from electrain.training.loop import StepResult, TrainingRun, train
from electrain.training.objective import R
from electrain.training.tracking import State, Tracking

CHECKPOINTS = "checkpoints"


class Sitting(Generic[R]):
    """What every run does around its steps: it restores, logs, writes checkpoints and shows its progress.

    Attributes:
        run: the run; its state is that of the last step, or of the restored checkpoint.
        directory: the run folder.
        journal: `metrics.jsonl`, which the first process writes.
        last_line: the newest log line of this sitting; empty before the first.
    """

    def __init__(self, run: TrainingRun[R], directory: Path) -> None:
        self.run, self.directory = run, directory
        self.journal = Journal(directory / JOURNAL_NAME)
        self.last_line: dict[str, Any] = {}
        self._tracking = Tracking((), directory, 0, 0)
        # The last step that an earlier sitting logged, which may be later than the one that it is restored to.
        self._logged_step = 0
        # The last log line's words for the live line, and the tokens and seconds at that time.
        self._details = ""
        self._logged_tokens, self._logged_seconds = 0, 0.0

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.run.runtime.is_first

    def restore(self, take: Callable[[dict[str, Any]], None]) -> bool:
        """Restores the newest intact checkpoint; False if there is none, and the run begins.

        Args: take: is given the checkpoint's state, with the values that `save` was given.
        Raises: CheckpointError: every checkpoint is damaged, or belongs to another model. ConfigurationError: the
            processes see different checkpoints.
        """
        checkpoint = self._agreed_checkpoint()
        if checkpoint is not None:
            load_checkpoint(checkpoint, self.run.objective, self.run.optimizers)
            with one_line_of(checkpoint):
                self.run.state.restore(checkpoint.state["run"])
                take(checkpoint.state)
        state = self.run.state
        if self.is_first:
            self._logged_step = self.journal.last_step()
            self.journal.cut_back(state.step)
        self._logged_tokens, self._logged_seconds = state.tokens, state.seconds
        return checkpoint is not None

    def _agreed_checkpoint(self) -> Checkpoint | None:
        """The newest intact checkpoint. Raises: ConfigurationError: the processes see different ones."""
        root, runtime = self.directory / CHECKPOINTS, self.run.runtime
        found, problem = None, ""
        try:
            found = find_checkpoint(root, say if self.is_first else lambda _: None)
        except CheckpointError as error:
            problem = str(error)
        # On machines that do not share the run folder, all processes but the first would silently begin at step 0.
        steps = runtime.gather(-1.0 if found is None else found.step)
        seen = ", ".join(
            f"process {rank} {'none' if step < 0 else f'step {step:.0f}'}" for rank, step in enumerate(steps)
        )
        content = problem if found is None else file_hash(found.directory / STATE_NAME)
        runtime.require_same(
            content,
            f"{root}: the processes see different checkpoints ({seen}); give --output a folder that all machines share",
        )
        if problem:
            raise CheckpointError(problem)
        return found

    def train(self, after_step: Callable[[StepResult[R]], bool]) -> bool:
        """Takes the remaining steps and shows the progress; see `electrain.training.loop.train`."""
        run = self.run
        progress = Progress("training", "steps", run.training.steps, first=run.state.step, is_silent=not self.is_first)
        tokens_before, seconds_before = run.state.tokens, run.state.seconds

        def show_then(result: StepResult[R]) -> bool:
            is_over = after_step(result)
            if run.is_read:
                rate = (run.state.tokens - tokens_before) / max(run.state.seconds - seconds_before, 1e-9)
                progress.update(run.state.step, ", ".join(filter(None, [f"{rate:,.0f} tokens/s", self._details])))
            return is_over

        with progress, self._tracked():
            return train(run, show_then)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Feeds the trackers of the configuration while the block runs, in the first process."""
        run = self.run
        end: State = "failed"
        names = run.training.report_to if self.is_first else ()
        if names:
            self._tracking = Tracking(names, self.directory, run.state.step, self._logged_step)
            self._tracking.start(read_toml(self.directory / CONFIGURATION_NAME))
        try:
            yield
            end = "failed" if run.is_failed else "stopped" if run.state.stopped_by else "finished"
        finally:
            self._tracking.finish(end)

    def tokens_per_second(self) -> float:
        """Real tokens per second of training since the last log line."""
        state = self.run.state
        seconds = state.seconds - self._logged_seconds
        return (state.tokens - self._logged_tokens) / max(seconds, 1e-9)

    def log(self, numbers: dict[str, Any], details: str) -> dict[str, Any]:
        """Writes a log line with the run's state, the speed since the last line and `numbers`, and returns it.

        Args: details: the most telling numbers in words, for the live line.
        """
        state = self.run.state
        rate = self.tokens_per_second()
        self._logged_tokens, self._logged_seconds = state.tokens, state.seconds
        self.last_line = {
            "event": "log",
            "step": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "tokens_per_second": round(rate, 1),
            "refused_updates": state.refused_updates,
            **numbers,
        }
        self.record(self.last_line)
        self._details = details
        return self.last_line

    def record(self, line: dict[str, Any]) -> None:
        """Writes a line to the journal, and its numbers to the trackers."""
        self.journal.write(line)
        self._tracking.log(line)

    def save(self, *, kept_steps: Collection[int] = (), **more: Any) -> None:
        """Writes a checkpoint, for which all processes wait.

        Args:
            kept_steps: whose checkpoints stay, besides the newest.
            more: values that `restore` returns.
        """
        state, root = {"run": self.run.state.to_dict(), **more}, self.directory / CHECKPOINTS
        run, step = self.run, self.run.state.step
        save_checkpoint(root, step, run.objective, run.optimizers, state, is_first=self.is_first, kept_steps=kept_steps)
        self.run.runtime.wait()
