"""CUDA graphs: a forward and backward pass is recorded once, and then replayed by a single launch.

A small network has a thousand short kernels in a step, and starting them one by one takes longer than computing them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from electrain.foundation.progress import say
from electrain.training.objective import LossTerm, Outcome

# Rows of other shapes need another recording, which keeps its activations. Beyond these, passes are not recorded.
MOST_RECORDINGS = 4
# PyTorch asks for passes before a recording, in which libraries and compilers prepare themselves.
PASSES_BEFORE_RECORDING = 2

# Takes rows on the device and the divisor of each loss, computes the losses and adds to the gradients.
ForwardAndBackward = Callable[[Any, dict[str, Tensor]], Outcome]


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]  # what the graph reads
    outcome: Outcome  # what it writes


class RecordedPasses:
    """Replays recorded passes for the rows that it is given. Their gradients stay in the same tensors for ever.

    A pass that is recorded must not wait for the device, draw random numbers, or depend on numbers on the host.
    """

    def __init__(self, pass_: ForwardAndBackward, model: nn.Module) -> None:
        self._pass, self._model = pass_, model
        self._recordings: dict[object, _Recording] = {}
        self._is_given_up = False

    def __call__(self, rows: Any, counts: dict[str, Tensor]) -> Outcome:
        """A pass, recorded if rows of this form are new. The outcome is overwritten by the next call."""
        leaves, structure = tree_flatten((rows, counts))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        form = (
            str(structure),
            *((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves),
        )
        if form not in self._recordings:
            if self._is_given_up or len(self._recordings) >= MOST_RECORDINGS:
                return self._pass(rows, counts)
            try:
                copies = iter([tensor.clone() for tensor in tensors])
                inputs = [next(copies) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
                own_rows, own_counts = tree_unflatten(inputs, structure)
                self._recordings[form] = self._record(own_rows, own_counts, inputs)
            except RuntimeError as error:
                self._is_given_up = True
                say(f"CUDA graphs do not work here ({str(error).strip().splitlines()[0][:150]}); continuing without")
                return self._pass(rows, counts)
        recording = self._recordings[form]
        torch._foreach_copy_(recording.inputs, tensors)
        recording.graph.replay()
        return recording.outcome

    def _record(self, rows: Any, counts: dict[str, Tensor], inputs: list[Any]) -> _Recording:
        parameters = list(self._model.parameters())
        # The passes before the recording add to the gradients, which may already hold those of other micro-batches.
        kept = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(PASSES_BEFORE_RECORDING):
                    self._pass(rows, counts)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads make rows on the device meanwhile, which is no part of the recording.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outcome = self._pass(rows, counts)
        finally:
            for parameter, gradient in zip(parameters, kept, strict=True):
                if not parameter.requires_grad:
                    parameter.grad = None  # in a stage that does not train it, an optimizer would still decay it
                elif parameter.grad is not None:
                    parameter.grad.zero_() if gradient is None else parameter.grad.copy_(gradient)
        return _Recording(graph, [leaf for leaf in inputs if isinstance(leaf, Tensor)], outcome)


def detached(outcome: Outcome) -> Outcome:
    """The outcome without the graph of its computation."""
    terms = {name: LossTerm(term.total.detach(), term.weight) for name, term in outcome.terms.items()}
    return Outcome(terms, outcome.observations)
