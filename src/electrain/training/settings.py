"""How long, how fast and with what a run trains."""

from dataclasses import dataclass
from typing import Literal

from electrain.foundation.configuration import require_at_least

Precision = Literal["auto", "bfloat16", "float32"]
Objective = Literal["replaced-token-detection", "masked-language-modelling"]


@dataclass(frozen=True)
class TrainingConfig:
    """The run.

    Attributes:
        steps: optimizer updates.
        batch_rows: rows per step, over all processes.
        micro_batch_rows: rows per forward pass of one process; 0 means all of its rows; less saves memory.
        peak_learning_rate: reached after the warm-up; 5e-4 (small) or 2e-4 (base, large) in the paper.
        generator_peak_learning_rate: above 0 gives the generator's own weights optimizers, a rate and a gradient norm
            of their own; 0: one for both networks, as published.
        warmup_steps: steps over which the learning rate rises from 0; 10,000 in the paper.
        schedule: linear decays to 0 from the warm-up on; warmup-stable-decay only over the last fifth of the steps.
        optimizer: adamw, or muon for the matrices inside the layers (adamw for all else).
        weight_decay: except for biases and LayerNorm; 0.01 in the paper.
        dropout: everywhere; 0.1 in the paper, 0 here, since one pass over a corpus does not overfit.
        seed: of initial weights, order, masks and samples.
        checkpoint_every_steps: a checkpoint is written every so many steps, and at the end.
        log_every_steps: a line of metrics.jsonl every so many steps.
        precision: bfloat16 autocast, float32, or auto: bfloat16 where the machine has instructions for it.
        compile: compile the step with torch.compile; where that fails it is said and the run goes on without.
        objective: replaced-token-detection, or the baseline masked-language-modelling.
    """

    steps: int
    batch_rows: int
    peak_learning_rate: float
    warmup_steps: int
    micro_batch_rows: int = 0
    generator_peak_learning_rate: float = 0.0
    schedule: Literal["linear", "warmup-stable-decay"] = "linear"
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    dropout: float = 0.0
    seed: int = 0
    checkpoint_every_steps: int = 1000
    log_every_steps: int = 20
    precision: Precision = "auto"
    compile: bool = True
    objective: Objective = "replaced-token-detection"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_rows", "checkpoint_every_steps", "log_every_steps"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("micro_batch_rows", "warmup_steps", "weight_decay", "seed"):
            require_at_least(name, getattr(self, name), 0)
        if not 0 < self.peak_learning_rate < 1:
            raise ValueError(f"peak_learning_rate = {self.peak_learning_rate}: must be above 0 and below 1")
        if not 0 <= self.generator_peak_learning_rate < 1:
            raise ValueError(
                f"generator_peak_learning_rate = {self.generator_peak_learning_rate}: must be 0, or below 1"
            )
        if not 0 <= self.dropout < 1:
            hint = f"; as a percentage it is written {self.dropout / 100}" if 1 <= self.dropout <= 100 else ""
            raise ValueError(f"dropout = {self.dropout}: must be a fraction from 0 to 1{hint}")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps = {self.warmup_steps}: must be below steps ({self.steps})")


@dataclass(frozen=True)
class ParityConfig:
    """Quirks of the reference implementation, all off by default; docs/guide.md says what each does.

    Attributes:
        colliding_positions: masked positions are drawn with replacement, and ids averaged where they collide.
        no_bias_correction: Adam's moments are used as they are.
        multiplied_warmup: warm-up and decay are multiplied, so that the peak is never quite reached.
        reference_packing: rows stop at document ends, are padded, and one in twenty is cut short.
    """

    colliding_positions: bool = False
    no_bias_correction: bool = False
    multiplied_warmup: bool = False
    reference_packing: bool = False
