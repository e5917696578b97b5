"""The settings of training: its length, its learning rate, its optimizer and its precision."""

from dataclasses import dataclass
from typing import Literal

from electrain.foundation.configuration import require_at_least

Precision = Literal["auto", "bfloat16", "float16", "float32"]
Sharding = Literal["none", "parameters"]
TrackerName = Literal["tensorboard", "wandb"]
# A third of them is drawn, which must be one word at least.
FEWEST_SOFTMAX_WORDS = 3
Objective = Literal["replaced-token-detection", "masked-language-modelling"]


@dataclass(frozen=True)
class TrainingConfig:
    """Length, speed and precision of the run.

    Attributes:
        steps: Number of optimizer updates, at least 1.
        batch_rows: Number of rows per step, over all processes, at least 1.
        peak_learning_rate: Learning rate at the end of the warm-up, above 0 and below 1. 5e-4 (small) or 2e-4 (base,
            large) in the paper.
        warmup_steps: Number of steps over which the learning rate rises from 0, below steps. 10,000 in the paper.
        micro_batch_rows: Number of rows per forward pass of one process; 0 uses all rows of the process. Fewer rows
            need less memory; the result is the same up to rounding and, with dropout, its random draws.
        gradient_checkpointing: Keep only the input of each layer, and compute the layer again in the backward pass.
            Needs far less memory and about a third more time; the result is the same, bit for bit.
        generator_peak_learning_rate: Peak learning rate of the generator, below 1; above 0, the generator has its own
            optimizer and gradient clipping. 0 trains both networks with one optimizer, as published.
        schedule: Learning rate after the warm-up. linear falls to 0 over the rest of the run, as published;
            warmup-stable-decay falls only over the last fifth of the steps.
        optimizer: Optimizer. adamw is used for all weights, as published; muon is used for the matrices inside the
            layers, and adamw for the rest.
        weight_decay: Weight decay, at least 0, not applied to biases and LayerNorm. 0.01 in the paper.
        dropout: Dropout probability in all layers, at least 0 and below 1. 0.1 in the paper; 0 here, since one pass
            over a corpus does not overfit.
        seed: Seed of the initial weights, the order of rows, the masks and the samples, at least 0.
        checkpoint_every_steps: Number of steps between checkpoints, at least 1; the last step always writes one.
        log_every_steps: Number of steps between lines in metrics.jsonl, at least 1.
        precision: Number format of the matrix products. auto measures which is fastest when the run begins: bfloat16
            autocast, float16 autocast on a GPU without bfloat16, or float32. float16 needs a CUDA device.
        compile: Compile the step with torch.compile; on a single GPU without dropout, also replay it as one CUDA graph.
            Where that fails, a message says so and the run continues without. Compiled code is kept for later runs in
            electrain/inductor below the user's cache folder (~/.cache, or XDG_CACHE_HOME), or in
            TORCHINDUCTOR_CACHE_DIR; the folder can be deleted at any time.
        deterministic: Use algorithms that give the same result every time, so that a resumed run equals an
            uninterrupted one bit for bit. false sums in any order, which can be faster on a GPU.
        sharding: How several processes hold the model. none keeps all of it in each; parameters divides weights,
            gradients and optimizer states among them, for models that do not fit on one device, and does not compile.
            A run may go on with the other. One process holds all in any case.
        softmax_words: Number of words that each word to restore is compared with in a step: two thirds are the most
            frequent ones, and one third is drawn anew in each step from all others, for which it stands (sampled
            softmax). A step then costs much less with a large vocabulary; one of less than twice as many words is
            compared as a whole. 0 compares with all words, as published.
        objective: What is trained. replaced-token-detection trains a generator and a discriminator;
            masked-language-modelling is the baseline, an encoder that restores masked words itself.
        report_to: Trackers that draw the curves of the run while it trains, besides metrics.jsonl: tensorboard writes
            event files into the folder tensorboard of the run (`pip install "electrain[track]"`), wandb makes a run
            of Weights & Biases (`pip install wandb`).
    """

    steps: int
    batch_rows: int
    peak_learning_rate: float
    warmup_steps: int
    micro_batch_rows: int = 0
    gradient_checkpointing: bool = False
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
    deterministic: bool = True
    sharding: Sharding = "none"
    softmax_words: int = 0
    objective: Objective = "replaced-token-detection"
    report_to: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_rows", "checkpoint_every_steps", "log_every_steps"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("micro_batch_rows", "warmup_steps", "weight_decay", "seed", "softmax_words"):
            require_at_least(name, getattr(self, name), 0)
        if 0 < self.softmax_words < FEWEST_SOFTMAX_WORDS:
            raise ValueError(
                f"softmax_words = {self.softmax_words}: must be 0, for all words, or at least {FEWEST_SOFTMAX_WORDS}"
            )
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
    """Quirks of the reference implementation, all off by default, since each is a slip or costs quality.

    Attributes:
        colliding_positions: Draw masked positions with replacement, and average the ids where positions collide.
        no_bias_correction: Use Adam's moments without bias correction.
        multiplied_warmup: Multiply warm-up and decay, so that the peak learning rate is never quite reached.
        reference_packing: End rows at document ends and pad them, and cut one row in twenty short.
    """

    colliding_positions: bool = False
    no_bias_correction: bool = False
    multiplied_warmup: bool = False
    reference_packing: bool = False
