"""The configuration of a pretraining run: its sections, its presets, and the file it is resolved into."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from electrain.data.shards.rows import DataConfig
from electrain.foundation.card import CardConfig
from electrain.foundation.configuration import (
    Tables,
    build_configuration,
    merge_tables,
    preset_names_in,
    read_preset_or_toml,
    read_toml,
)
from electrain.foundation.progress import say
from electrain.models.backbones import EncoderConfig
from electrain.models.discriminator import DiscriminatorConfig
from electrain.models.generators import GeneratorConfig
from electrain.pretraining.objectives.game import GameConfig
from electrain.pretraining.objectives.masking import CorruptionConfig
from electrain.pretraining.probe import ProbeConfig
from electrain.training.settings import ParityConfig, TrainingConfig

_PRESETS = "electrain.pretraining.presets"
# A run shorter than planned warms up for at most this fraction of its steps, or the planned one where that is more.
WARMUP_FRACTION = 0.1


@dataclass(frozen=True)
class StartConfig:
    """Pretrained weights to start from. The run is new: its step and its schedule start at 0.

    Attributes:
        discriminator: Folder or hub id of an ELECTRA, BERT or RoBERTa encoder, or of a ModernBERT that electrain
            trained; empty starts from random weights.
        generator: Folder or hub id of a language model of the generator's kind and sizes; empty starts from random
            weights.
        word_embeddings: How the word embeddings begin where no weights are given. random: like all other weights.
            co-occurrence: from counts of which tokens of the shards stand near each other, in both networks; this takes
            seconds, and a short run learns far more from its steps.
    """

    discriminator: str = ""
    generator: str = ""
    word_embeddings: Literal["random", "co-occurrence"] = "random"


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of a pretraining run; together with the shards, they determine its result."""

    encoder: EncoderConfig
    training: TrainingConfig
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    start: StartConfig = field(default_factory=StartConfig)
    game: GameConfig = field(default_factory=GameConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    card: CardConfig = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        if self.training.objective == "replaced-token-detection":
            for message, is_wrong in _contradictions(self).items():
                if is_wrong:
                    raise ValueError(message)

    @property
    def trains_generator(self) -> bool:
        """True where a generator network is trained beside the discriminator, so that a new run can start from it."""
        is_network = self.generator.kind in ("masked", "causal")
        return self.training.objective == "replaced-token-detection" and is_network


def _contradictions(config: PretrainConfig) -> dict[str, bool]:
    """What no single section can see: each message, and whether it applies."""
    generator, judge, corruption = config.generator, config.discriminator, config.corruption
    heads, missing, noise, steps = judge.heads, corruption.missing_fraction, corruption.noise, config.training.steps
    is_generated, is_electric, detects = corruption.source == "generated", "electric" in heads, "detection" in heads
    is_mixture, is_adversary = generator.training == "mixture", generator.training != "likelihood"
    is_relaxed = generator.training in ("gumbel", "mixture")
    depths, layers = config.game.mixture_depths, generator.layers or config.encoder.layers
    is_sampled = config.training.softmax_words > 0
    sampled = f"[training] softmax_words = {config.training.softmax_words}"
    training = f'[generator] training = "{generator.training}"'
    return {
        f'[corruption] source = "generated": a {generator.kind} generator cannot write passages; set [generator] kind '
        '= "causal"': is_generated and generator.kind != "causal",
        f'[corruption] noise = "{noise}": goes by words that written passages replace; use "random"': (
            is_generated and noise != "random"
        ),
        "[corruption] missing_fraction = 1: nothing is replaced, so detection finds nothing; lower it, or set source = "
        '"generated"': missing == 1 and detects and not is_generated and noise not in ("deletion", "shuffle"),
        '[discriminator] correction_at = "missing": nothing is missing; set [corruption] missing_fraction': (
            "correction" in heads and judge.correction_at == "missing" and not missing
        ),
        '[discriminator] detection_at = "selected": all selected tokens are missing; lower [corruption] '
        "missing_fraction": missing == 1 and judge.detection_at == "selected",
        '[discriminator] heads "electric": compares tokens with proposed ones; set [corruption] missing_fraction = 0 '
        'and source = "corpus"': is_electric and (missing > 0 or is_generated),
        "[parity] colliding_positions: belongs to the published recipe only, with noise random and words proposed at "
        "all selected positions; switch it off": config.parity.colliding_positions
        and (noise != "random" or is_relaxed or is_electric or missing > 0),
        f"[generator] own_stage_steps = {generator.own_stage_steps}: must be below steps ({steps})": (
            generator.own_stage_steps >= steps
        ),
        f"{sampled}: an electric head needs the probabilities of all words; set it to 0": is_sampled and is_electric,
        f"{sampled}: a generator that is trained against the discriminator needs all words; set it to 0": (
            is_sampled and is_adversary
        ),
        f'{sampled}: copies of words are not sampled; set it to 0, or [discriminator] correction_at = "replaced"': (
            is_sampled and "correction" in heads and judge.correction_at == "all"
        ),
        f"{training}: the gradient of further heads would reach the generator too; set [discriminator] heads = "
        '["detection"]': is_relaxed and detects and len(heads) > 1,
        f"{training}: no word that it proposes is shown with [corruption] missing_fraction = 1; lower it": (
            is_adversary and missing == 1
        ),
        f"{training}: half of the proposed words are not shown to an electric head; leave "
        '"electric" out of [discriminator] heads': is_adversary and is_electric,
        f"{training}: needs two depths or more to mix; give more in [game] mixture_depths, or more layers": (
            is_mixture and (len(depths) == 1 or layers < 2)
        ),
        f'{training}: plays against the detection head; add "detection" to [discriminator] heads': (
            is_adversary and not detects
        ),
        f"{training}: needs [discriminator] loss_weight above 0": is_relaxed and not judge.loss_weight,
        f"[game] mixture_depths = {list(depths)}: the generator has {layers} layers": (
            is_mixture and bool(depths) and depths[-1] > layers
        ),
    }


def preset_names() -> list[str]:
    """The configurations that come with electrain: demo, tiny, small, base, large, article, the paper's ablations."""
    return preset_names_in(_PRESETS)


def load_configuration(
    config: str | Tables, overrides: Tables | None = None, *, resumed: Path | None = None
) -> PretrainConfig:
    """A configuration from a TOML file, from a preset by its name, or from its sections, with fields overridden.

    Args: resumed: the configuration file of the run that goes on, where there is one.
    Raises: ConfigurationError: see `build_configuration`.
    """
    tables = read_preset_or_toml(_PRESETS, config, "presets") if isinstance(config, str) else config
    where = config if isinstance(config, str) else "config"
    overrides = overrides or {}
    scaled = _scaled_stages(tables, overrides)
    fitted = merge_tables(tables, merge_tables(overrides, scaled))
    if resumed is not None and resumed.is_file():
        begun = read_toml(resumed)
        for section, table in scaled.items():
            fitted[section] |= {name: begun.get(section, {}).get(name, value) for name, value in table.items()}
        return build_configuration(PretrainConfig, fitted, where)
    configuration = build_configuration(PretrainConfig, fitted, where)
    for section, table in scaled.items():
        for name, value in table.items():
            was, flag = tables[section][name], f"--{section}.{name}".replace("_", "-")
            say(f"{name} is lowered from {was:,} to {value:,} with the steps; {flag} sets another number")
    return configuration


def fitting_steps(name: str, length: int, steps: int, planned: int) -> int:
    """How long the stage `name` is, which is `length` of the `planned` steps, in a run of fewer steps."""
    least = round(WARMUP_FRACTION * steps) if name == "warmup_steps" else 0
    return min(length, max(1, least, round(length * steps / planned)))


def _scaled_stages(tables: Tables, overrides: Tables) -> Tables:
    """Numbers of steps that go with fewer steps than a file plans: of the warm-up, and of the generator's own stage.

    A preset's warm-up of 10,000 steps would otherwise forbid a short trial, or fill it.
    """
    steps, planned = (each.get("training", {}).get("steps") for each in (overrides, tables))
    if not isinstance(steps, int) or not isinstance(planned, int) or not 1 < steps < planned:
        return {}
    scaled: Tables = {}
    for section, name in (("training", "warmup_steps"), ("generator", "own_stage_steps")):
        length = tables.get(section, {}).get(name)
        if name in overrides.get(section, {}) or not isinstance(length, int):
            continue
        fitting = fitting_steps(name, length, steps, planned)
        if fitting < length:
            scaled[section] = {name: fitting}
    return scaled
