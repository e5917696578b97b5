"""CUDA graphs: a forward and backward pass is recorded once, and then replayed by a single launch.

A small network has a thousand short kernels in a step, and starting them one by one takes longer than computing them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from electrain.foundation.errors import first_line
from electrain.foundation.progress import say
from electrain.training.objective import LossTerm, Outcome

# Rows of other shapes need another recording, which keeps its activations. Beyond these, passes are not recorded.
MOST_RECORDINGS = 4
# PyTorch asks for passes before a recording, in which libraries and compilers prepare themselves.
PASSES_BEFORE_RECORDING = 2


class ForwardAndBackward(Protocol):
    """Computes the losses of a micro-batch and adds to the gradients."""

    def __call__(self, rows: Any, counts: dict[str, Tensor], number: int) -> Outcome:
        """
        Args:
            rows: as the objective prepared them.
            counts: () float32; the divisor of each loss.
            number: of the micro-batch in its step.
        """


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]  # what the graph reads
    outcome: Outcome  # what it writes
    gradients: list[Tensor | None]  # what it writes, or adds to, for each parameter


class RecordedPasses:
    """Replays recorded passes for the rows that it is given.

    The first pass of a step overwrites the gradients, and the others add to them, so that nothing sets them to zero in
    between. They stay in the same tensors as long as the rows keep their form. A pass that is recorded must not wait
    for the device, draw random numbers, or depend on numbers on the host.
    """

    def __init__(self, pass_: ForwardAndBackward, model: nn.Module) -> None:
        self._pass, self._parameters = pass_, list(model.parameters())
        self._recordings: dict[object, _Recording] = {}
        self._first: _Recording | None = None  # that began the present step
        self._is_given_up = False

    def __call__(self, rows: Any, counts: dict[str, Tensor], number: int) -> Outcome:
        """A pass, recorded if rows of this form are new. The outcome is overwritten by the next call."""
        leaves, structure = tree_flatten((rows, counts))
        begun = None if number == 0 else id(self._first)
        form = (
            str(structure),
            begun,
            *((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves),
        )
        recording = self._recordings.get(form)
        if recording is None:
            try:
                recording = self._recorded(leaves, structure, number)
            except RuntimeError as error:
                self._is_given_up = True
                say(f"CUDA graphs do not work here ({_reason(error)}); continuing without")
            if recording is None:
                if number == 0:
                    self._set_gradients([None] * len(self._parameters))
                return self._pass(rows, counts, number)
            self._recordings[form] = recording
        if number == 0 and recording is not self._first:
            self._set_gradients(recording.gradients)
            self._first = recording
        torch._foreach_copy_(recording.inputs, [leaf for leaf in leaves if isinstance(leaf, Tensor)])
        recording.graph.replay()
        return recording.outcome

    def _recorded(self, leaves: list[Any], structure: Any, number: int) -> _Recording | None:
        """A recording for rows of this form; None if there shall be no more."""
        if self._is_given_up or len(self._recordings) >= MOST_RECORDINGS:
            return None
        inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        rows, counts = tree_unflatten(inputs, structure)
        none, before = [None] * len(self._parameters), [parameter.grad for parameter in self._parameters]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(PASSES_BEFORE_RECORDING):
                    self._set_gradients(none)
                    self._pass(rows, counts, number)
            torch.cuda.current_stream().wait_stream(stream)
            # Without a gradient a pass writes one; to one that is there, it adds.
            self._set_gradients(none if number == 0 else before)
            graph = torch.cuda.CUDAGraph()
            # Other threads make rows on the device meanwhile, which is no part of the recording.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outcome = self._pass(rows, counts, number)
        except BaseException:
            self._set_gradients(before)
            raise
        tensors = [leaf for leaf in inputs if isinstance(leaf, Tensor)]
        return _Recording(graph, tensors, outcome, [parameter.grad for parameter in self._parameters])

    def _set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first; the end of a recording fails because of that, and says only so."""
    while error.__context__ is not None:
        error = error.__context__
    return (first_line(error) or type(error).__name__)[:150]


def detached(outcome: Outcome) -> Outcome:
    """The outcome without the graph of its computation."""
    terms = {name: LossTerm(term.total.detach(), term.weight) for name, term in outcome.terms.items()}
    return Outcome(terms, outcome.observations)
