"""Pretrain your own ELECTRA on text in your own language or field, and use it.

The folders, in the order of the road; each imports only from those above it (ARCHITECTURE.md says more):

    foundation   user errors, configuration files, progress on stderr, output folders
    data         text, tokenizer, token shards, labelled examples
    models       backbones, generators, the discriminator, Hugging Face folders
    training     the training loop and the protocol of what it trains
    pretraining  pretraining objectives, the run and its report
    finetuning   fine-tuning tasks and the run
    inference    evaluate and predict
    cli          the command line
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from electrain.foundation.errors import ElectrainError
    from electrain.inference.answers import Answer
    from electrain.inference.predictor import Predictor, load
    from electrain.inference.verbs import evaluate, finetune, pretrain, push
    from electrain.models.recurrent import ELECTRAClassifier
    from electrain.pretraining.plain_module import DetectionCollator, ReplacedTokenDetection

__all__ = [
    "Answer",
    "DetectionCollator",
    "ELECTRAClassifier",
    "ElectrainError",
    "Predictor",
    "ReplacedTokenDetection",
    "__version__",
    "evaluate",
    "finetune",
    "load",
    "pretrain",
    "push",
]

__version__ = "0.1.0"

# The OpenMP library reads this when torch loads it. By default a thread that waits for the others spins for long. Where
# other work shares the cores, it spins on the core that they need. A thread that sleeps at once wakes too late on a
# quiet machine. This many rounds are the middle (docs/experiments.md, "Waiting threads").
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# The module of each name that is imported when it is first used, so that `import electrain` takes no time.
_MODULES = {
    "Answer": "electrain.inference.answers",
    "DetectionCollator": "electrain.pretraining.plain_module",
    "ELECTRAClassifier": "electrain.models.recurrent",
    "ElectrainError": "electrain.foundation.errors",
    "Predictor": "electrain.inference.predictor",
    "ReplacedTokenDetection": "electrain.pretraining.plain_module",
    "evaluate": "electrain.inference.verbs",
    "finetune": "electrain.inference.verbs",
    "load": "electrain.inference.predictor",
    "pretrain": "electrain.inference.verbs",
    "push": "electrain.inference.verbs",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module electrain has no attribute {name}")
        value: object = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
