"""Fine-tuning with several seeds: one run for each, a summary of their scores, and the model of the best one."""

import dataclasses
import json
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from electrain.finetuning.card import SCORES_NAME
from electrain.finetuning.choosing import rank
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.run import FinetuneResult
from electrain.foundation.card import carry_card, has_edited_card
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.json_output import to_json
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import replaced_directory, require_empty, write_text_durably
from electrain.foundation.progress import say

# A run that diverged is repeated with this added to its seed, up to MOST_RESTARTS times.
RESTARTED_SEED_OFFSET = 1000
MOST_RESTARTS = 2
MOST_SEEDS = 1000
FineTune = Callable[[FinetuneConfig, Path], FinetuneResult]


def finetune_each(
    fine_tune: FineTune, config: FinetuneConfig, output: Path, *, seeds: int | None, resume: bool = False
) -> tuple[FinetuneResult, dict[str, Any] | None]:
    """Fine-tunes once, into `output`; or with each of `seeds` seeds, into `output/seed-N`.

    The best model of several is copied to `output/model`. Of several, a run that diverged is repeated with another
    seed, and a message says so.

    Args: fine_tune: runs `finetune` with a configuration, into a folder.
    Returns: how the last run ended; and with several seeds median, least and greatest of every score, ready for JSON,
        which is also written to `output/scores.json`.
    Raises: ElectrainError: see `finetune`.
    """
    if seeds is None:
        return fine_tune(config, output), None
    with locked(output):
        return _finetune_seeds(fine_tune, config, output, seeds, resume=resume)


def _finetune_seeds(
    fine_tune: FineTune, config: FinetuneConfig, output: Path, seeds: int, *, resume: bool
) -> tuple[FinetuneResult, dict[str, Any]]:
    if not 1 <= seeds <= MOST_SEEDS:
        raise ConfigurationError(f"--seeds {seeds}: must be at least 1 and at most {MOST_SEEDS:,}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError("--seeds: runs in one process; start each seed by itself, with --training.seed")
    if not resume:
        require_empty(output)
    runs: list[FinetuneResult] = []
    restarts: list[int] = []
    for number in range(seeds):
        attempts: list[FinetuneResult] = []
        for attempt in range(MOST_RESTARTS + 1):
            seed = config.training.seed + number + attempt * RESTARTED_SEED_OFFSET
            own = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
            say(f"seed {seed}")
            result = fine_tune(own, output / f"seed-{seed}")
            if not result.is_finished and not result.is_diverged:
                done = [run.directory.name for run in runs]
                return result, {"output": str(output), "finished": False, "seeds": done}
            attempts.append(result)
            if not result.is_diverged:
                break
            if attempt < MOST_RESTARTS:
                restarts.append(seed)
                say(f"seed {seed} diverged; seed {seed + RESTARTED_SEED_OFFSET} replaces it")
        # A run that ended early may have kept a good model before.
        varied = [one for one in attempts if one.scores and not one.is_constant]
        runs.append(varied[-1] if varied else result)
    return result, _summary(runs, restarts, output)


def _summary(runs: list[FinetuneResult], restarts: list[int], output: Path) -> dict[str, Any]:
    scored = [run for run in runs if run.scores]
    if not scored:
        raise ConfigurationError("every seed diverged before its first evaluation; lower --training.peak-learning-rate")
    written = json.loads((scored[0].directory / SCORES_NAME).read_text("utf-8"))
    main, chosen_by = written["main_score"], written["chosen_by"]
    best = max(scored, key=lambda run: rank(run.scores, chosen_by, is_constant=run.is_constant))
    summary = {
        "output": str(output),
        "finished": True,
        "seeds": len(runs),
        "restarted_seeds": restarts,
        "diverged": sum(run.is_diverged for run in runs),
        "main_score": main,
        "chosen_by": chosen_by,
        "best": best.directory.name,
        "scores": {
            name: {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
            for name in best.scores
            if len(values := [run.scores[name] for run in scored if name in run.scores]) == len(scored)
        },
    }
    if runs[0].is_first:
        with replaced_directory(output / "model") as temporary:
            shutil.copytree(best.directory / "model", temporary, dirs_exist_ok=True)
            if has_edited_card(output / "model"):
                carry_card(output / "model", temporary)
        write_text_durably(output / SCORES_NAME, to_json(summary, indent=2) + "\n")
    return summary
