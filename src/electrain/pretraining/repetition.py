"""How often a run reads its text over, and what to do where that is too often.

Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", figure 1: up to about 4 readings, repeated
text is almost as good as new text; after about 40, repeating it is worth nothing more. BERT read its text about 40
times (Devlin et al. 2018, appendix A.2).
"""

from electrain.foundation.progress import say
from electrain.pretraining.configuration import PretrainConfig, fitting_steps

AS_GOOD_AS_NEW = 4
MOST_READINGS = 40


def times_read(config: PretrainConfig, rows_per_epoch: int) -> float:
    """How often the whole run reads a text of so many rows."""
    return config.training.steps * config.training.batch_rows / rows_per_epoch


def say_if_read_too_often(verb: str, config: PretrainConfig, rows_per_epoch: int) -> None:
    """Says on stderr how often the text is read, and advises fewer steps, if it is read more than `MOST_READINGS`."""
    times = times_read(config, rows_per_epoch)
    if times <= MOST_READINGS:
        return
    planned, warmup, own_stage = config.training.steps, config.training.warmup_steps, config.generator.own_stage_steps
    steps = max(1, int(planned * MOST_READINGS / times))
    # As `pretrain` shortens them by itself; named, because a number that the user gave stays as it is.
    advice = f"--training.steps {steps} --training.warmup-steps {fitting_steps('warmup_steps', warmup, steps, planned)}"
    if own_stage:
        advice += f" --generator.own-stage-steps {fitting_steps('own_stage_steps', own_stage, steps, planned)}"
    shown = round(times, 2 - len(str(int(times))))  # two digits tell enough
    say(
        f"{verb}: the text will be read about {shown:,.0f} times. Up to about {AS_GOOD_AS_NEW} times, it teaches "
        f"nearly as much as new text does; beyond about {MOST_READINGS}, hardly anything (Muennighoff et al. 2023). "
        f"Prepare more text, or give {advice}"
    )
