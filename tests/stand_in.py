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
    """Answers with each input, its number in the call and the options, and keeps every call but those of the start."""

    tasks: tuple[str, ...] = ("embed", "generate")
    reads_pairs: bool | None = None
    seconds_per_text: float = 0.0
    calls: list[list[Input]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    is_broken: bool = False

    def __post_init__(self) -> None:
        self.may_answer.set()

    def ask(self, task: str, inputs: Sequence[Input], **options: object) -> list[Echo]:
        self.calls.append(list(inputs))
        assert self.may_answer.wait(20)
        time.sleep(self.seconds_per_text * len(inputs))
        if self.is_broken:
            raise RuntimeError("a secret text")
        for number, one in enumerate(inputs, start=1):
            if one == "refuse me":
                raise DataError(f"input {number}: is refused; send another")
            if one == "break":
                raise RuntimeError("a secret text")
        if inputs == ["answer at length"]:
            return [Echo({"text": "x" * 20_000_000})]
        numbers = enumerate(inputs, start=1)
        return [Echo({"text": one, "embedding": [number], **options}) for number, one in numbers]
