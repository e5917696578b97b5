"""Fine-tunes a model with one of the recipes, scores it, and prints predictions, all from Python.

python examples/finetune_recipe.py sst2 --model RUN --train train.tsv --validation validation.tsv --output OUT
"""

import argparse
import json
from pathlib import Path

import electrain
from electrain.data.labelled.examples import TaskName
from electrain.finetuning.configuration import recipe_names
from electrain.foundation.configuration import parse_overrides

TASKS: dict[str, TaskName] = {
    "sst2": "classification",
    "cola": "classification",
    "rte": "classification",
    "chnsenticorp": "classification",
    "stsb": "regression",
    "brown_pos": "tagging",
    "people_daily_ner": "tagging",
    "squad": "question-answering",
    "cmrc2018": "question-answering",
    "aeslc": "summarization",
    "csl_titles": "summarization",
    "multi30k_en_de": "translation",
    "multi30k_de_en": "translation",
    "tatoeba_en_zh": "translation",
    "tatoeba_zh_en": "translation",
    "classical_modern_zh": "translation",
}


def main() -> None:
    """Prints the scores, then the answers to the first three validation examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=recipe_names())
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--output", type=Path, required=True)
    options, overrides = parser.parse_known_args()
    task = TASKS[options.recipe]
    files = {"train": options.train, "validation": options.validation}
    tuned = electrain.finetune(
        task,
        model=options.model,
        **files,
        output=options.output,
        config=options.recipe,
        overrides=parse_overrides(overrides),
    )
    found = electrain.evaluate(task, model=tuned.output, data=options.validation, skip_broken=True)
    print(json.dumps(found.scores))
    for answer in found.answers[:3]:
        print(json.dumps(answer, ensure_ascii=False))
    print(electrain.load(tuned.output))


if __name__ == "__main__":
    main()
