"""The four measures of the race: what is made of an encoder with few labels, frozen, asked for grammar, and writing."""

import argparse
import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from electrain.data.labelled.reading import Columns, read_examples
from electrain.finetuning.card import SCORES_NAME
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.inference.evaluate.blimp import pair_results, read_minimal_pairs
from electrain.pretraining.run_folder import open_run_folder
from electrain.training.runtime import started_runtime
from finetune_sets import FEW_LABELS, SETS
from finetune_table import Job, test_sets, trained
from probes import FrozenEncoder, accuracies, features_of, read_tagged
from race_training import Entry, Race, encoder_of

Scores = dict[str, Any]
TAGGED_SENTENCES = 1000
TAGGED_VALIDATION_SENTENCES = 500
# As in the comparison of objectives: 1.1 points of standard error, half a minute of one core for the smallest encoder.
PAIRS_PER_SET = 30
# Sets, their training examples (0: all), epochs (0: as many as so few labels need), and validation examples.
FEW: dict[str, tuple[tuple[str, int, float, int], ...]] = {
    "english": (("brown_pos", 500, 0, 500), ("sst2", 2000, 0, 0), ("stsb", 0, 4.0, 500)),
    "chinese": (("people_daily_ner", 500, 0, 500),),
}
# Up to a width, as the defaults of `finetune` go: three rates, of which validation chooses.
RATES = ((192, (5e-4, 1e-3, 2e-3)), (1 << 30, (1e-4, 3e-4, 1e-3)))
WRITING_SET, WRITING_EPOCHS, WRITING_VALIDATION_PAIRS = "multi30k_en_de", 4.0, 200
# At the smallest budgets, translation must not cost ten times what pretraining does.
FEW_OPERATIONS, FEW_PAIRS = 5e13, 10_000


def frozen(race: Race, entry: Entry, language: str) -> Scores:
    """What a linear classifier and the cosine read out of the encoder as it is.

    The classifier reads all layers side by side, as `probes.py` does, and also the best one and the last one; the
    cosine is that of one layer. The best layer is that of validation data.
    """
    run = encoder_of(race, entry)
    length = open_run_folder(run).trained_length or 64
    encoder = FrozenEncoder(str(run / "model"), length)
    scores = _tagging(race, encoder, "brown_pos" if language == "english" else "people_daily_ner")
    return scores | (_similarity(race, encoder) if language == "english" else {})


def _tagging(race: Race, encoder: FrozenEncoder, name: str) -> Scores:
    counts = {"train": TAGGED_SENTENCES, "validation": TAGGED_VALIDATION_SENTENCES, "test": TAGGED_SENTENCES}
    train, validation, test = (
        features_of(encoder, read_tagged(race.data / name / f"{split}.conll.gz", most), is_pooled=False)
        for split, most in counts.items()
    )
    found = [accuracies(train, [validation, test], layer) for layer in range(train.vectors.shape[1])]
    layer = int(np.argmax([of_validation for of_validation, _ in found]))
    of_validation, of_test = accuracies(train, [validation, test])
    return {
        "tagging": of_test,
        "tagging_validation": of_validation,
        "tagging_best_layer": found[layer][1],
        "tagging_layer": layer,
        "tagging_last": found[-1][1],
        "tagging_by_layer": [of_test for _, of_test in found],
    }


def _similarity(race: Race, encoder: FrozenEncoder) -> Scores:
    validation, test = (_spearman(race, encoder, split) for split in ("validation", "test"))
    layer = int(np.nanargmax(validation))  # the vectors of a layer that collapsed have no correlation
    return {
        "similarity": test[layer],
        "similarity_validation": validation[layer],
        "similarity_layer": layer,
        "similarity_last": test[-1],
        "similarity_by_layer": test,
    }


def _spearman(race: Race, encoder: FrozenEncoder, split: str) -> list[float]:
    """For each layer, 100 times the rank correlation of the cosines of mean vectors with people's scores."""
    file = str(race.data / "stsb" / f"{split}.tsv")
    examples = read_examples("regression", [file], Columns("sentence1", "sentence2", "score", quoting="csv")).examples
    one, other = (
        np.concatenate(list(encoder.features([text.split() for text in texts], is_pooled=True)))
        for texts in ([example.first for example in examples], [example.second for example in examples])
    )
    cosines = (one * other).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))
    values = [example.value for example in examples]
    return [100 * float(spearmanr(column, values).statistic) for column in cosines.T]


def zero_shot(race: Race, entry: Entry, language: str) -> Scores:
    """Accuracy on BLiMP's minimal pairs by the best scorer, chosen on the other half of the pairs; and by each."""
    del language
    pairs = read_minimal_pairs(race.data / "blimp", PAIRS_PER_SET)
    # In the format that is fastest here: bfloat16 takes five times as long where there are no instructions for it.
    with started_runtime("auto") as runtime, runtime.autocast():
        results = pair_results(encoder_of(race, entry), pairs)
    accuracy, chosen = best_of_halves(results)
    by_scorer = {name: 100 * float(right.mean()) for name, right in results.items()}
    return {"blimp": 100 * accuracy, "scorers_chosen": chosen, "pairs": len(pairs), "by_scorer": by_scorer}


def best_of_halves(results: dict[str, NDArray[np.float64]]) -> tuple[float, list[str]]:
    """The accuracy of the best scorer on pairs that did not choose it, and the scorers chosen.

    Even pairs choose for odd ones, and the reverse, so that every pair counts and none flatters.

    Args: results: for each scorer, (pairs,) float64.
    """
    names = list(results)
    table = np.stack([results[name] for name in names])
    halves = [table[:, half::2] for half in (0, 1)]
    best = [int(np.argmax(half.mean(1))) for half in halves]
    right = halves[1][best[0]].sum() + halves[0][best[1]].sum()
    return float(right / table.shape[1]), [names[number] for number in best]


def few_label(race: Race, entry: Entry, language: str) -> Scores:
    """Test scores after fine-tuning on few labels, each at the best of three rates on validation examples."""
    run = encoder_of(race, entry)
    width = json.loads((run / "model" / "config.json").read_text())["hidden_size"]
    rates = next(rates for most, rates in RATES if width <= most)
    scores: Scores = {}
    for name, few, epochs, validation in FEW[language]:
        changes = {
            "training.epochs": epochs or FEW_LABELS[few],
            "training.layer_decay": 1.0,
            "data.train_examples": few,
            "data.validation_examples": validation,
        }
        scores |= _best_of_rates(race, entry, name, changes, rates)
    return scores


def writing(race: Race, entry: Entry, language: str) -> Scores:
    """BLEU of translations that a new decoder writes greedily from the encoder."""
    del language
    pairs = FEW_PAIRS if entry.budget < FEW_OPERATIONS else 0
    changes = {
        "training.epochs": WRITING_EPOCHS,
        "data.train_examples": pairs,
        "data.validation_examples": WRITING_VALIDATION_PAIRS,
        "generation.beams": 1,
    }
    found = _best_of_rates(race, entry, WRITING_SET, changes, (0.0,))
    of_validation = found[f"{WRITING_SET}_validation"]
    return {"bleu": found[WRITING_SET], "bleu_validation": of_validation, "training_pairs": pairs or "all"}


def _best_of_rates(race: Race, entry: Entry, name: str, changes: dict[str, Any], rates: tuple[float, ...]) -> Scores:
    """The test and validation score of the rate that is best on validation, the rate, and the validation score of each.

    Args: rates: 0 stands for the recipe's own.
    """
    chosen, validation = SETS[name], {}
    options = argparse.Namespace(data=str(race.data), output=entry.folder(race), common="")
    job, files = Job(name, "pretrained", entry.seed), race.data / (chosen.folder or name)
    sources = ([str(files / chosen.train)], [str(files / chosen.validation)])
    runs = {rate: entry.folder(race) / f"{name}-{rate:g}" for rate in rates}
    for rate, run in runs.items():
        own = {"training.peak_learning_rate": rate} if rate else {}
        trained(options, job, str(encoder_of(race, entry)), sources, changes | own | {"training.seed": entry.seed}, run)
        told = json.loads((run / SCORES_NAME).read_text())
        validation[f"{rate:g}"] = told["scores"][told["main_score"]]
    best = max(rates, key=lambda rate: validation[f"{rate:g}"])
    tuned = load_fine_tuned(runs[best], (chosen.task,))
    examples = test_sets(options, name)["test"]
    score = tuned.task.score(examples, tuned.task.answer(tuned.model, examples))[chosen.shown]
    if not race.keeps:
        for run in runs.values():
            shutil.rmtree(run)
    return {
        name: score,
        f"{name}_validation": validation[f"{best:g}"],
        f"{name}_rate": best,
        f"{name}_rates": validation,
    }


MEASURES: dict[str, Callable[[Race, Entry, str], Scores]] = {
    "frozen": frozen,
    "zero-shot": zero_shot,
    "few-label": few_label,
    "writing": writing,
}
ONLY_ENGLISH = ("zero-shot", "writing")
