"""The configuration of a pretraining run: its sections, its presets, and the file it is resolved into."""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from electrain.data.shards.rows import DataConfig
from electrain.foundation.configuration import Tables, build_configuration, merge_tables, read_toml
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.progress import say
from electrain.models.backbones import EncoderConfig
from electrain.models.discriminator import DiscriminatorConfig
from electrain.models.generators import GeneratorConfig
from electrain.pretrain.objectives.game import GameConfig
from electrain.pretrain.objectives.masking import CorruptionConfig
from electrain.training.settings import ParityConfig, TrainingConfig


@dataclass(frozen=True)
class StartConfig:
    """Pretrained weights to start from. The run is new: its step and its schedule start at 0.

    Attributes:
        discriminator: Folder or hub id of an ELECTRA, BERT or RoBERTa encoder, or of a ModernBERT that electrain
            trained; empty starts from random weights.
        generator: Folder or hub id of a masked language model with the generator's sizes; empty starts from random
            weights.
    """

    discriminator: str = ""
    generator: str = ""


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

    def __post_init__(self) -> None:
        if self.training.objective == "replaced-token-detection":
            for is_wrong, message in self._contradictions() + self._contradictions_of_the_game():
                if is_wrong:
                    raise ValueError(message)

    def _contradictions(self) -> list[tuple[bool, str]]:
        """What no single section can see: (is it so?, what to say)."""
        generator, corruption, heads = self.generator, self.corruption, self.discriminator.heads
        has_correction = "correction" in heads
        relaxes = generator.training in ("gumbel", "mixture")
        return [
            (
                corruption.source == "generated" and generator.kind != "causal",
                f'[corruption] source = "generated": a {generator.kind} generator cannot write passages; '
                'set [generator] kind = "causal"',
            ),
            (
                corruption.source == "generated" and corruption.noise != "random",
                f'[corruption] noise = "{corruption.noise}": goes by the words of the text, which written passages '
                'replace; use "random"',
            ),
            (
                corruption.missing_fraction == 1
                and corruption.source == "corpus"
                and "detection" in heads
                and corruption.noise not in ("deletion", "shuffle"),
                "[corruption] missing_fraction = 1: nothing is replaced, so detection finds nothing; lower it, or set "
                'source = "generated"',
            ),
            (
                has_correction and self.discriminator.correction_at == "missing" and not corruption.missing_fraction,
                '[discriminator] correction_at = "missing": nothing is missing; set [corruption] missing_fraction',
            ),
            (
                corruption.missing_fraction == 1 and self.discriminator.detection_at == "selected",
                '[discriminator] detection_at = "selected": all selected tokens are missing; lower [corruption] '
                "missing_fraction",
            ),
            (
                "electric" in heads and (corruption.missing_fraction > 0 or corruption.source == "generated"),
                '[discriminator] heads "electric": compares tokens with proposed ones; set [corruption] '
                'missing_fraction = 0 and source = "corpus"',
            ),
            (
                self.parity.colliding_positions
                and (corruption.noise != "random" or relaxes or "electric" in heads or corruption.missing_fraction > 0),
                "[parity] colliding_positions: goes with the published recipe only, noise random and every position "
                "proposed; switch it off",
            ),
            (
                generator.own_stage_steps >= self.training.steps,
                f"[generator] own_stage_steps = {generator.own_stage_steps}: must be below steps "
                f"({self.training.steps})",
            ),
        ]

    def _contradictions_of_the_game(self) -> list[tuple[bool, str]]:
        """The same, of an adversarial generator."""
        generator, heads, depths = self.generator, self.discriminator.heads, self.game.mixture_depths
        is_adversary = generator.training != "likelihood"
        relaxes = generator.training in ("gumbel", "mixture")
        layers = generator.layers or self.encoder.layers
        return [
            (
                relaxes and "detection" in heads and len(heads) > 1,
                f'[generator] training = "{generator.training}": the gradient of further heads would reach the '
                'generator too; set [discriminator] heads = ["detection"]',
            ),
            (
                is_adversary and self.corruption.missing_fraction == 1,
                f'[generator] training = "{generator.training}": no word that it proposes is shown with [corruption] '
                "missing_fraction = 1; lower it",
            ),
            (
                is_adversary and "electric" in heads,
                f'[generator] training = "{generator.training}": half of the words proposed are not shown to an '
                'electric head; leave "electric" out of [discriminator] heads',
            ),
            (
                generator.training == "mixture" and (len(depths) == 1 or layers < 2),
                '[generator] training = "mixture": needs two depths to mix at least; give more in [game] '
                "mixture_depths, or more layers",
            ),
            (
                is_adversary and "detection" not in heads,
                f'[generator] training = "{generator.training}": plays against the detection head; add "detection" to '
                "[discriminator] heads",
            ),
            (
                relaxes and not self.discriminator.loss_weight,
                f'[generator] training = "{generator.training}": needs [discriminator] loss_weight above 0',
            ),
            (
                generator.training == "mixture" and bool(depths) and depths[-1] > layers,
                f"[game] mixture_depths = {list(depths)}: the generator has {layers} layers",
            ),
        ]


def preset_names() -> list[str]:
    """The configurations that come with electrain: demo, tiny, small, base, large, article, the paper's ablations."""
    return sorted(path.name.removesuffix(".toml") for path in _presets().iterdir() if path.name.endswith(".toml"))


def _presets() -> "resources.abc.Traversable":  # type: ignore[name-defined]
    return resources.files("electrain.pretrain.presets")


def load_configuration(name_or_path: str, overrides: Tables | None = None) -> PretrainConfig:
    """A configuration from a TOML file, or from a preset by its name, with fields overridden.

    Raises: ConfigurationError: see `build_configuration`.
    """
    if name_or_path in preset_names():
        with resources.as_file(_presets() / f"{name_or_path}.toml") as path:
            tables = read_toml(path)
    elif not name_or_path.endswith(".toml"):
        presets = ", ".join(preset_names())
        raise ConfigurationError(f"{name_or_path}: not a .toml file nor one of the presets {presets}; give one of them")
    else:
        tables = read_toml(Path(name_or_path))
    overrides = overrides or {}
    return build_configuration(
        PretrainConfig, merge_tables(tables, _with_stages_scaled(tables, overrides)), name_or_path
    )


def _with_stages_scaled(tables: Tables, overrides: Tables) -> Tables:
    """The overrides, with a warm-up and a generator's own stage that fit the number of steps that they set.

    A preset's warm-up of 10,000 steps would otherwise forbid a short trial. Only what cannot fit is changed, in
    proportion, and said.
    """
    steps, planned = (one.get("training", {}).get("steps") for one in (overrides, tables))
    if not isinstance(steps, int) or not isinstance(planned, int) or not 1 < steps < planned:
        return overrides
    scaled: Tables = {}
    for section, name in (("training", "warmup_steps"), ("generator", "own_stage_steps")):
        length = tables.get(section, {}).get(name, 0)
        if name not in overrides.get(section, {}) and isinstance(length, int) and length >= steps:
            fitting = min(steps - 1, max(1, round(length * steps / planned)))
            scaled[section] = {name: fitting}
            flag = f"--{section}.{name}".replace("_", "-")
            say(f"{name}: {length:,} of {planned:,} steps become {fitting:,} of {steps:,}; {flag} sets another number")
    return merge_tables(overrides, scaled)
