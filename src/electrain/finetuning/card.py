"""The model card of a fine-tuning run: the `README.md` of its `model/`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers

from electrain import __version__
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.linear import LINEAR_MODELS
from electrain.finetuning.tasks.classification import LABEL_THRESHOLD
from electrain.finetuning.tasks.settings import TASK_FILE_NAME, TaskSettings, read_task_settings
from electrain.foundation.card import (
    CARD_NAME,
    Card,
    Score,
    as_code,
    dataset_of,
    details,
    has_edited_card,
    plain,
    public_name,
    public_toml,
    render,
    replace_section,
    table,
    unsaid,
    write_card,
)
from electrain.foundation.configuration import read_configuration, to_toml
from electrain.foundation.output_folder import CONFIGURATION_NAME, JOURNAL_NAME, read_any_manifest
from electrain.foundation.progress import counted, say
from electrain.foundation.report_page import json_lines
from electrain.models.cards import FolderFacts, facts_of_folder, opening, text_limits

SCORES_NAME = "scores.json"
# The tasks by their names on the hub.
_PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "tagging": "token-classification",
    "question-answering": "question-answering",
    "summarization": "summarization",
    "translation": "translation",
}
# The scores that have a name on the hub; others stand in the text alone.
_METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "f1_macro": "f1",
    "f1_micro": "f1",
    "precision": "precision",
    "recall": "recall",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "exact_match": "exact_match",
    "bleu": "bleu",
    "chrf": "chrf",
    "rouge1": "rouge",
    "rouge2": "rouge",
    "rougeL": "rouge",
}
_ASKED = {
    "classification": ("classify", '"a text to judge"'),
    "regression": ("regress", '"a text to judge"'),
    "tagging": ("tag", '"a text to tag"'),
    "question-answering": ("answer", "--input questions.jsonl"),
    "summarization": ("summarize", '"a long text"'),
    "translation": ("translate", '"a text"'),
}
# Tasks that a pipeline of transformers does, where the texts are not pairs.
_IN_PIPELINE = ("classification", "regression", "tagging")
_MOST_LABELS = 30


def write_cards(run: Path) -> None:
    """Writes `model/README.md` of a run, except where there is no model or somebody edited it."""
    if not (run / "model" / "config.json").is_file():
        return
    config = read_configuration(FinetuneConfig, run / CONFIGURATION_NAME)
    result = json.loads((run / SCORES_NAME).read_text("utf-8"))
    write_card(run / "model", render(_card(run, config, result)))


def write_use(model: Path) -> None:
    """Writes the section "Use" of a model's card anew, after its task.json has changed, or says that it is edited."""
    if has_edited_card(model):
        say(f"warning: {model / CARD_NAME} is edited and stays so; say in it that transformers ignores the thresholds")
        return
    if (model / CARD_NAME).is_file():
        replace_section(model, "Use", _use(facts_of_folder(model), read_task_settings(model / TASK_FILE_NAME)))


def _card(run: Path, config: FinetuneConfig, result: dict[str, Any]) -> Card:
    folder, manifest = facts_of_folder(run / "model"), read_any_manifest(run)
    facts, settings = manifest.facts, read_task_settings(run / "model" / TASK_FILE_NAME)
    task = settings.task
    base, card = str(facts.get("base_model") or ""), config.card
    sources = {kind: [str(one) for one in facts.get(kind, ())] for kind in ("train_sources", "validation_sources")}
    datasets = [name for names in sources.values() for one in names if (name := dataset_of(one))]
    start = plain(base or public_name(str(facts.get("model") or "")))
    begun = (
        f"fine-tuned from {start}" if config.training.weights == "pretrained" else f"trained with the sizes of {start}"
    )
    purpose = f"A model for {task.replace('-', ' ')}: {folder.size}, {begun} with electrain."
    return Card(
        card.name or public_name(str(run.resolve())),
        card,
        _PIPELINES[task],
        [task] if task != _PIPELINES[task] else [],
        "transformers" if folder.is_known else "electrain",
        base if config.training.weights == "pretrained" else "",
        datasets,
        _hub_scores(result, sources["validation_sources"], task),
        {
            "": [purpose, "", *_labels(facts), *unsaid(card, has_base=bool(base), has_datasets=bool(datasets))],
            "Use": _use(folder, settings),
            "How it was made": _making(run, config, sources),
            "Scores": _scores(result, sources["validation_sources"]),
            "Limits": _limits(task, folder, result),
        },
    )


def _labels(facts: Mapping[str, Any]) -> list[str]:
    labels = [str(label) for label in facts.get("labels", ())]
    if not labels:
        return []
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return [f"Labels: {', '.join(map(as_code, labels[:_MOST_LABELS]))}{more}.", ""]


def _use(folder: FolderFacts, settings: TaskSettings) -> list[str]:
    task, is_pair = settings.task, settings.reads_pairs
    verb, asked = _ASKED[task]
    if is_pair and task in _IN_PIPELINE:
        asked = "--input pairs.tsv"
    lines = [
        "With electrain, in this folder, which reads texts as the training did:",
        "",
        "```sh",
        f"electrain predict {verb} --model . {asked}",
        "```",
        "",
        *threshold_notes(settings),
        "With transformers:",
        "",
    ]
    if task in _IN_PIPELINE and folder.is_known and not is_pair:
        return [*lines, "```python", *_pipeline(_PIPELINES[task], settings), "```"]
    return [*lines, *opening(folder, [])]


def threshold_notes(settings: TaskSettings) -> list[str]:
    """What a card says of chosen thresholds, as paragraphs; nothing where there are none."""
    if not settings.thresholds:
        return []
    shown = [*settings.thresholds.items()][:_MOST_LABELS]
    named = ", ".join(f"{as_code(label)} from a probability of {value:.4f} on" for label, value in shown)
    if not settings.has_many:
        named += f", otherwise {as_code(next(one for one in settings.labels if one not in settings.thresholds))}"
    more = len(settings.thresholds) - len(shown)
    return [
        f"Its labels go by thresholds, which were chosen on validation data after the training: {named}"
        f"{f', and {more} more' if more else ''}. `electrain predict` and `electrain.load` go by them. What does not "
        f"read `{TASK_FILE_NAME}` ignores them and gives other labels, as does the pipeline of transformers by itself. "
        "The scores in this card were measured before, without thresholds.",
        "",
    ]


def _pipeline(name: str, settings: TaskSettings) -> list[str]:
    """Python that asks the pipeline of transformers; with thresholds, it decides as electrain does."""
    begin = [
        "from transformers import pipeline",
        "",
        f'ask = pipeline("{name}", model=".")  # this folder, or its name on the hub',
    ]
    if not settings.thresholds:
        return [*begin, 'print(ask("a text to read"))']
    lines = [*begin, 'chances = {one["label"]: one["score"] for one in ask("a text to read", top_k=None)}']
    if settings.has_many:
        return [
            *lines,
            f"thresholds = {settings.thresholds!r}",
            f"print([label for label in chances if chances[label] >= thresholds.get(label, {LABEL_THRESHOLD})])",
        ]
    [(label, value)] = settings.thresholds.items()
    other = next(one for one in settings.labels if one != label)
    return [*lines, f"print({label!r} if chances[{label!r}] >= {value!r} else {other!r})"]


def _making(run: Path, config: FinetuneConfig, sources: Mapping[str, Sequence[str]]) -> list[str]:
    manifest = read_any_manifest(run)
    facts, machine = manifest.facts, manifest.facts.get("machine") or {}
    last: dict[str, Any] = next((line for line in reversed(json_lines(run / JOURNAL_NAME)) if "tokens" in line), {})

    def named(kind: str) -> str:
        return ", ".join(as_code(source) for source in sources[kind]) or "not recorded"

    rows = [
        ("training examples", f"{int(facts.get('train_examples', 0)):,} of {named('train_sources')}"),
        ("steps", f"{int(facts.get('step', 0)):,}" + ("" if manifest.finished else "; the run was not finished")),
        ("tokens read", f"{int(last.get('tokens') or 0):,}, up to the last logged step"),
        ("hours of training", f"{float(facts.get('seconds', 0.0)) / 3600:,.2f}"),
        ("seed", str(config.training.seed)),
    ]
    if machine:
        rows += [
            ("machine", f"{plain(str(machine['device']))}; processes: {machine['processes']}"),
            ("versions", f"electrain {__version__}, torch {machine['torch']}, transformers {transformers.__version__}"),
        ]
    kept = public_toml(to_toml(config), [])
    summary = "The configuration: save it as config.toml, for electrain finetune TASK --config config.toml"
    return [*table(("fact", "value"), rows), "", *details(summary, "toml", kept)]


def _hub_scores(result: Mapping[str, Any], sources: Sequence[str], task: str) -> list[Score]:
    source = sources[0] if len(sources) == 1 else "validation"
    name = dataset_of(source)
    return [
        Score(_PIPELINES[task], name or source, bool(name), _METRICS[score], score, float(value))
        for score, value in result["scores"].items()
        if score in _METRICS
    ]


def _scores(result: Mapping[str, Any], sources: Sequence[str]) -> list[str]:
    if not result["scores"]:
        return ["The run ended before it was scored."]
    where = ", ".join(as_code(source) for source in sources)
    settings = {name: value for name, value in result["settings"].items() if name not in ("model", "columns")}
    shown = "; ".join(
        f"{plain(name)} {as_code(json.dumps(value, ensure_ascii=False))}" for name, value in settings.items()
    )
    examples = counted(int(result["validation_examples"]), "validation example")
    return [
        f"On {examples}{f' of {where}' if where else ''}, in per cent except for errors:",
        "",
        *table(("score", "value"), [(as_code(name), f"{value:.2f}") for name, value in result["scores"].items()]),
        "",
        f"The model is that of step {result['best_step']}, chosen by {as_code(str(result['chosen_by']))} on these same "
        "examples, which flatters it a little. Another seed gives other scores; `electrain finetune --seeds 5` shows "
        f"how far they spread. Settings: {shown}.",
        *_linear(result),
    ]


def _linear(result: Mapping[str, Any]) -> list[str]:
    """What a linear model reaches on the same examples; runs of before it was measured have none."""
    scores = result.get("linear_scores") or {}
    if not scores:
        return []
    named = ", ".join(f"{as_code(name)} {value:.2f}" for name, value in scores.items())
    return ["", f"For comparison, {LINEAR_MODELS[result['task']]}, on the same training examples: {named}."]


def _limits(task: str, folder: FolderFacts, result: Mapping[str, Any]) -> list[str]:
    lines = ["- It was scored on texts like those it was trained on. On other kinds of text, score it first."]
    if task == "classification":
        lines.append("- It always answers with its labels, whatever the text is about; it cannot say that none fits.")
    if task == "question-answering":
        lines.append("- It finds answers that stand in the given context, word for word; it knows no others.")
    if task in ("summarization", "translation"):
        lines.append("- It can write fluent text that is wrong, and leave out or invent names and numbers.")
    if result.get("is_constant"):
        lines.insert(0, "- It gives every validation example the same answer: it has learned nothing.")
    lines.append(f"- It is a model of {folder.size}: fast, and less exact than large ones on hard texts.")
    return [*lines, *text_limits(folder)]
