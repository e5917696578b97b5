"""What the service counts, for Prometheus."""

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 16384)


class Counted(Protocol):
    """A part of a batch."""

    @property
    def places(self) -> Sequence[int]:
        """One for each input."""

    @property
    def tokens(self) -> int:
        """About the number of its tokens."""


class Metrics:
    """The counters of one service; `text` shows them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("electrain_requests", "Requests.", ("task", "status"), registry=registry)
        self.seconds = Histogram(
            "electrain_request_seconds",
            "From a request's headers to the end of its answer.",
            ("task",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_inputs = Gauge("electrain_queue_inputs", "Inputs that wait.", ("model",), registry=registry)
        self.inputs = Counter("electrain_inputs", "Inputs computed.", ("model", "task"), registry=registry)
        self.tokens = Counter("electrain_tokens", "Tokens computed, about.", ("model", "task"), registry=registry)
        sizes, tokens = ("Inputs in a batch.", _SIZES), ("Tokens in a batch, about.", _TOKENS)
        self.batch_inputs, self.batch_tokens, self.batch_seconds = (
            Histogram(f"electrain_batch_{unit}", text, ("model",), buckets=buckets, registry=registry)
            for unit, (text, buckets) in (
                ("inputs", sizes),
                ("tokens", tokens),
                ("seconds", ("Time that a batch takes.", _SECONDS)),
            )
        )

    def count_batch(self, model: str, task: str, batch: Sequence[Counted], seconds: float) -> None:
        """Counts what went through a model together."""
        inputs, tokens = sum(len(piece.places) for piece in batch), sum(piece.tokens for piece in batch)
        self.inputs.labels(model, task).inc(inputs)
        self.tokens.labels(model, task).inc(tokens)
        self.batch_inputs.labels(model).observe(inputs)
        self.batch_tokens.labels(model).observe(tokens)
        self.batch_seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All counters, in Prometheus' text format."""
        return generate_latest(self.registry)
