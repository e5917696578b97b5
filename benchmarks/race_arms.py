"""The arms of the race: what each changes, the network that all share at a budget, and the steps that an arm gets."""

import dataclasses
from dataclasses import dataclass

from electrain.foundation.configuration import Tables, merge_tables, parse_overrides
from electrain.foundation.errors import ConfigurationError
from electrain.models.generators import GeneratorConfig
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.plan import plan
from published_objective import PUBLISHED

_WIDE = (
    "encoder.layers=8 encoder.hidden_size=384 encoder.feed_forward_size=768 encoder.heads=6 data.sequence_length=128 "
    "training.peak_learning_rate=1.5e-3"
)
# The arms differ from the published objective, which the presets below no longer have.
_PUBLISHED = " ".join(f"{name.replace('-', '_')}={value}" for name, value in PUBLISHED.items())
# Up to so many counted operations: the preset that all arms start from, and what all of them change in it. The first
# two are those of docs/results.md, "Objectives compared" and `tiny`; the third is for one GPU. The last takes more rows
# a step, which makes 37,000 steps instead of 150,000.
SIZES: tuple[tuple[float, str, str], ...] = (
    (5e13, "demo", f"{_PUBLISHED} training.compile=true"),
    (1e15, "tiny", _PUBLISHED),
    (2e16, "tiny", f"{_PUBLISHED} {_WIDE} training.batch_rows=64"),
    (float("inf"), "tiny", f"{_PUBLISHED} {_WIDE} training.batch_rows=256"),
)
# As in the comparison of objectives: a tenth of the steps, but not more than the warm-up of `tiny`.
WARMUP_FRACTION, LONGEST_WARMUP_STEPS = 0.1, 300
# Fewer are no training; more than the budget pays for would be no race.
FEWEST_STEPS = 10
CHECKPOINTS_PER_RUN = 8
# Every stage of a run reads its rows in an order of its own; otherwise the second would read what the first one read.
SEEDS_PER_STAGE = 1000


@dataclass(frozen=True)
class Stage:
    """A part of a run: the fraction of the operations that it may spend, and its changes, as `section.field=value`.

    `{half}` stands for half of the stage's steps, `{before}` for the model folder of the stage before.
    """

    fraction: float
    settings: str


@dataclass(frozen=True)
class Arm:
    """A way to spend the operations. `rate` multiplies the learning rate of the budget."""

    stages: tuple[Stage, ...]
    rate: float = 1.0

    def words(self) -> str:
        """All that the arm changes, for its lines: an arm whose words have changed is another arm."""
        stages = "; then ".join(f"{stage.fraction:g} of the operations: {stage.settings}" for stage in self.stages)
        return f"{stages}; rate x {self.rate:g}"


def whole(*settings: str, rate: float = 1.0) -> Arm:
    """An arm of one stage."""
    return Arm((Stage(1.0, " ".join(filter(None, settings))),), rate)


def two(fraction: float, first: str, second: str) -> Arm:
    """An arm whose second stage starts from the encoder of the first."""
    return Arm((Stage(fraction, first), Stage(1 - fraction, f"start.discriminator={{before}} {second}")))


UNTRAINED = "untrained"
MLM = "training.objective=masked-language-modelling"
CAUSAL = "generator.kind=causal"
BOTH = "discriminator.heads=detection discriminator.heads=correction"
# No generator: a fraction of the selected positions shows [MASK], the others a word of similar frequency.
ONE = f"generator.kind=unigram generator.clusters=8 {BOTH}"
AT_MISSING = "discriminator.correction_at=missing"
HALF_MISSING = "corruption.missing_fraction=0.5"
MOST_MISSING = "corruption.missing_fraction=0.8"
MIXED_MISSING = "corruption.missing_fraction=0.75"
# Words and detection, with a generator of one layer: most of the selected positions show [MASK], the others a word that
# GPT-2 would write there.
MIXED = f"{CAUSAL} generator.layers=1 {BOTH}"
# The same with all losses weighed alike, as the presets have it.
PRESETS = f"{MIXED} {MIXED_MISSING} discriminator.loss_weight=1"
LINEAR = "training.schedule=linear"
DECAY = "training.weight_decay=0.1"
COUNTED = "start.word_embeddings=co-occurrence"
SAMPLED = "training.softmax_words=3072"
WHOLE_WORD = "corruption.noise=whole-word"


def masked(fraction: float) -> str:
    """The setting of the selected fraction."""
    return f"corruption.masked_fraction={fraction:g}"


def weighed(weight: float) -> str:
    """The setting of the detection loss's weight; the loss of words has weight 1."""
    return f"discriminator.loss_weight={weight:g}"


def _searched(name: str, settings: str) -> dict[str, Arm]:
    """An arm, and the same with other rates, masked fractions, schedules and weight decay: every baseline's care."""
    return {
        name: whole(settings),
        f"{name}-half-rate": whole(settings, rate=0.5),
        f"{name}-double-rate": whole(settings, rate=2.0),
        f"{name}-masked-15": whole(settings, masked(0.15)),
        f"{name}-masked-25": whole(settings, masked(0.25)),
        f"{name}-masked-falling": whole(settings, "corruption.last_masked_fraction=0.15"),
        f"{name}-linear": whole(settings, LINEAR),
        f"{name}-decay": whole(settings, DECAY),
        f"{name}-whole-word": whole(settings, WHOLE_WORD),
        f"{name}-counted": whole(settings, COUNTED),
        f"{name}-counted-sampled": whole(settings, COUNTED, SAMPLED),
        f"{name}-counted-sampled-1536": whole(settings, COUNTED, "training.softmax_words=1536"),
    }


# Whether a row was written is one question for all of its tokens: at the usual weight it drowns all else.
ARTICLE = f"discriminator.loss_weight=1 {CAUSAL} corruption.source=generated corruption.missing_fraction=1.0 {AT_MISSING} {BOTH}"  # noqa: E501  # fmt: skip

ARMS: dict[str, Arm] = {
    # What the measures find without any learning: a measure on which no arm is above it tells nothing about the arms.
    UNTRAINED: Arm((Stage(0.0, MLM),), rate=1e-9),
    **_searched("mlm", MLM),
    "mlm-one-and-a-half-rate": whole(MLM, rate=1.5),
    **_searched("published", ""),
    "published-weight-50": whole(weighed(50)),
    **_searched("causal", CAUSAL),
    "causal-weight-25": whole(CAUSAL, weighed(25)),
    "causal-cool": whole(CAUSAL, "generator.temperature=0.7"),
    "causal-cooling": whole(CAUSAL, "generator.last_temperature=0.5"),
    "causal-small": whole(CAUSAL, "generator.size_fraction=0.25"),
    "causal-shallow": whole(CAUSAL, "generator.layers=2"),
    "causal-shallow-wide": whole(CAUSAL, "generator.layers=1 generator.size_fraction=1.0"),
    # Words and detection, with a generator.
    "correction": whole(BOTH),
    "correction-weight-25": whole(BOTH, weighed(25)),
    "correction-missing": whole(BOTH, AT_MISSING, HALF_MISSING),
    "causal-correction": whole(CAUSAL, BOTH),
    "causal-correction-missing": whole(CAUSAL, BOTH, AT_MISSING, HALF_MISSING),
    "causal-correction-selected": whole(CAUSAL, BOTH, HALF_MISSING),
    **_searched("mixed", f"{MIXED} {MIXED_MISSING} {weighed(3)}"),
    **_searched("mixed-weight-1", PRESETS),
    "mixed-weight-1-small": whole(PRESETS, "generator.size_fraction=0.25"),
    "mixed-weight-1-large": whole(PRESETS, "generator.size_fraction=1.0"),
    "mixed-weight-1-cool": whole(PRESETS, "generator.temperature=0.7"),
    "mixed-weight-1-cooling": whole(PRESETS, "generator.last_temperature=0.5"),
    "mixed-weight-10": whole(MIXED, MIXED_MISSING, weighed(10)),
    "mixed-missing-50": whole(MIXED, HALF_MISSING, weighed(3)),
    "mixed-missing-90": whole(MIXED, "corruption.missing_fraction=0.9", weighed(3)),
    "mixed-masked-50": whole(MIXED, MIXED_MISSING, weighed(3), masked(0.5)),
    "mixed-small": whole(MIXED, MIXED_MISSING, weighed(3), "generator.size_fraction=0.25"),
    "mixed-full-depth": whole(CAUSAL, BOTH, MIXED_MISSING, weighed(3)),
    # Words and detection in one network.
    "one-network": whole(ONE, HALF_MISSING, AT_MISSING),
    "one-network-selected": whole(ONE, HALF_MISSING),
    "one-network-80": whole(ONE, MOST_MISSING, AT_MISSING),
    "one-network-80-selected": whole(ONE, MOST_MISSING),
    "one-network-80-selected-weight-1": whole(ONE, MOST_MISSING, weighed(1)),
    "one-network-80-selected-weight-3": whole(ONE, MOST_MISSING, weighed(3)),
    "one-network-80-selected-masked-30": whole(ONE, MOST_MISSING, masked(0.3)),
    "one-network-80-selected-masked-50": whole(ONE, MOST_MISSING, masked(0.5)),
    "one-network-80-selected-double-rate": whole(ONE, MOST_MISSING, rate=2.0),
    "one-network-80-selected-decay": whole(ONE, MOST_MISSING, DECAY),
    "one-network-weight-1": whole(ONE, HALF_MISSING, AT_MISSING, weighed(1)),
    "one-network-weight-3": whole(ONE, HALF_MISSING, AT_MISSING, weighed(3)),
    # First words, then detection, and the reverse.
    "words-25-then-causal": two(0.25, MLM, CAUSAL),
    "words-50-then-causal": two(0.5, MLM, CAUSAL),
    "words-25-then-published": two(0.25, MLM, ""),
    "words-50-then-published": two(0.5, MLM, ""),
    "words-25-then-mixed-weight-1": two(0.25, MLM, PRESETS),
    "words-50-then-mixed-weight-1": two(0.5, MLM, PRESETS),
    "mixed-weight-1-50-then-words": two(0.5, PRESETS, MLM),
    "words-50-then-one-network": two(0.5, MLM, f"{ONE} {MOST_MISSING}"),
    # The network that learned words is also the generator of the second stage, where it stays as it is.
    "words-25-then-frozen": two(0.25, MLM, "generator.kind=frozen generator.source={before}"),
    "causal-50-then-words": two(0.5, CAUSAL, MLM),
    "published-50-then-words": two(0.5, "", MLM),
    # Those of the comparison of objectives (docs/results.md) that are not above.
    "article": whole(ARTICLE),
    "unigram": whole("generator.kind=unigram"),
    "clustered-unigram": whole("generator.kind=unigram generator.clusters=8"),
    "two-stage": whole("generator.kind=frozen generator.size_fraction=1.0 generator.own_stage_steps={half}"),
    "frozen-small": whole("generator.kind=frozen generator.own_stage_steps={half}"),
    "replace-mlm": whole("discriminator.heads=correction"),
    "all-tokens": whole(BOTH, "discriminator.correction_at=all"),
    "electra-15-percent": whole("discriminator.detection_at=selected"),
    "electric": whole("discriminator.heads=detection discriminator.heads=electric"),
    "policy-gradient": whole("generator.training=policy-gradient"),
    "pure-policy-gradient": whole("generator.training=policy-gradient game.likelihood_weight=0"),
    "gumbel": whole("generator.training=gumbel"),
    "mixture": whole("generator.training=mixture"),
    "disentangled": whole("generator.embedding_sharing=gradient-disentangled"),
    "separate": whole("generator.embedding_sharing=separate"),
    "span": whole("corruption.noise=span"),
    "deletion": whole("corruption.noise=deletion"),
    "shuffle": whole("corruption.noise=shuffle"),
    "lstm": whole("encoder.backbone=lstm discriminator.heads=correction"),
}


def tables_of(settings: str) -> Tables:
    """The tables of settings written as `section.field=value` with spaces between; a field given twice is a list."""
    return parse_overrides([f"--{setting}" for setting in settings.split()])


def stage_configuration(
    arm: Arm, number: int, budget: float, seed: int, common: str = "", *, steps: int = 1000, before: str = ""
) -> PretrainConfig:
    """The configuration of a stage.

    Args:
        number: of the stage in the arm, from 0.
        common: settings of all arms of a race, over those of the budget and below those of the arm.
        before: the model folder of the stage before; empty where only the cost is asked.
    """
    preset, shared = next((preset, shared) for most, preset, shared in SIZES if budget <= most)
    own = arm.stages[number].settings.format(half=max(1, steps // 2), before=before)
    tables = merge_tables(tables_of(shared), merge_tables(tables_of(common), tables_of(own)))
    if not before and isinstance(start := tables.get("start"), dict):
        start.pop("discriminator", None)
    length: Tables = {
        "training": {
            "steps": steps,
            "warmup_steps": max(1, min(LONGEST_WARMUP_STEPS, round(WARMUP_FRACTION * steps))),
            "seed": seed + SEEDS_PER_STAGE * number,
            "checkpoint_every_steps": max(1, steps // CHECKPOINTS_PER_RUN),
        }
    }
    config = load_configuration(preset, merge_tables(tables, length))
    rate = config.training.peak_learning_rate * arm.rate
    return dataclasses.replace(config, training=dataclasses.replace(config.training, peak_learning_rate=rate))


def operations_per_step(config: PretrainConfig, vocabulary_size: int) -> float:
    """Counted operations of a step, the mean over a run; a stage that leaves a network out costs so much less."""
    cost = plan(config, vocabulary_size=vocabulary_size).flops.per_step
    if not (config.generator.own_stage_steps or config.corruption.source == "generated"):
        return cost
    # With no written rows to detect, some positions must be replaced; how many does not change the count.
    replaced = min(0.5, config.corruption.missing_fraction)
    corruption = dataclasses.replace(config.corruption, source="corpus", missing_fraction=replaced)
    alone = dataclasses.replace(config, generator=GeneratorConfig(kind="unigram"), corruption=corruption)
    judge = plan(alone, vocabulary_size=vocabulary_size).flops.per_step
    forward = (cost - judge) / 3  # the generator's forward pass; its backward pass costs twice as much
    own = config.generator.own_stage_steps / config.training.steps
    if own:  # these steps train it alone, the others run it forward only
        return own * 3 * forward + (1 - own) * (judge + forward)
    # Writing a row costs about one more forward pass over it.
    return cost + config.corruption.generated_fraction * forward


def steps_for(
    arm: Arm, number: int, budget: float, vocabulary_size: int, common: str = "", before: str = ""
) -> tuple[int, float]:
    """The steps of a stage that cost its fraction of the budget, and the operations of one of them.

    A stage without operations takes the two steps without which there is no network.

    Raises: ConfigurationError: the budget pays for too few.
    """
    config = stage_configuration(arm, number, budget, 0, common, before=before)
    cost = operations_per_step(config, vocabulary_size)
    steps = round(arm.stages[number].fraction * budget / cost)
    if not arm.stages[number].fraction:
        return 2, cost
    if steps < FEWEST_STEPS:
        raise ConfigurationError(f"{budget:g} operations pay for {steps} steps of stage {number} only; raise --budget")
    return steps, cost
