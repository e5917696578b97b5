"""Fine-tunes a model with one of the recipes, scores it, and prints predictions, all from Python.

python examples/finetune_recipe.py sst2 --model RUN --train train.tsv --validation validation.tsv --output OUT
"""

import argparse
import json
from pathlib import Path

from electrain.data.labelled.examples import TaskName
from electrain.finetuning.configuration import load_finetune_configuration, recipe_names
from electrain.finetuning.run import finetune
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.foundation.configuration import parse_overrides
from electrain.inference.evaluate.tasks import evaluate_task

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
    config = load_finetune_configuration(options.recipe, parse_overrides(overrides))
    finetune(task, config, options.model, [options.train], [options.validation], options.output)
    result, answers = evaluate_task(task, options.output, [options.validation], skip_broken=True)
    print(json.dumps(result["scores"]))
    for answer in answers[:3]:
        print(json.dumps(answer, ensure_ascii=False))
    tuned = load_fine_tuned(options.output, (task,))  # tuned.task.answer(tuned.model, examples) answers more
    print(f"{tuned.source}: {sum(parameter.numel() for parameter in tuned.model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
