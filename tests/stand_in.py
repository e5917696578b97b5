"""A predictor without a network, for tests of the service: what it answers is known, and it can be slow or broken."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from electrain.foundation.errors import DataError

Input = str | Mapping[str, object]


@dataclass(frozen=True)
class Echo:
    """The input, and how the model was asked."""

    content: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        return self.content


@dataclass
class StandIn:
    """Answers with the length of each text, and keeps every call."""

    tasks: tuple[str, ...] = ("embed", "generate", "fill")
    reads_pairs: bool | None = None
    seconds: float = 0.0  # for each call
    calls: list[list[Input]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.may_answer.set()

    def ask(self, task: str, inputs: Sequence[Input], **options: object) -> list[Echo]:
        self.calls.append(list(inputs))
        self.may_answer.wait(10)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        for number, one in enumerate(inputs, start=1):
            if one == "refuse me":
                raise DataError(f"input {number}: is refused; send another")
            if one == "break":
                raise RuntimeError("secret text")
        return [Echo({"text": one, "embedding": [len(str(one))], **options}) for one in inputs]
