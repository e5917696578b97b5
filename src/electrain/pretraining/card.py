"""The model cards of a pretraining run: one `README.md` in each folder of a network."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from electrain import __version__
from electrain.foundation.card import (
    Card,
    Score,
    as_code,
    dataset_of,
    details,
    plain,
    public_name,
    public_toml,
    render,
    table,
    unsaid,
    write_card,
)
from electrain.foundation.configuration import read_configuration, to_toml
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.hub import is_hub_name
from electrain.foundation.json_output import to_json
from electrain.foundation.output_folder import (
    CONFIGURATION_NAME,
    JOURNAL_NAME,
    MANIFEST_NAME,
    Manifest,
    read_any_manifest,
    write_text_durably,
)
from electrain.foundation.progress import counted
from electrain.foundation.report_page import Record, json_lines, number
from electrain.models.cards import FolderFacts, facts_of_folder, opening, sentence_embeddings, text_limits
from electrain.pretraining.best_checkpoint import BEST_FOLDER, best_of, probed_steps
from electrain.pretraining.configuration import PretrainConfig

# The scores of `electrain evaluate detection --add-to-card`, beside the run's own files.
HELD_OUT_NAME = "held_out.json"
PAPER = "[ELECTRA](https://arxiv.org/abs/2003.10555)"
_RECENT_LINES = 5
_JUDGE = "Judge the encoder by a fine-tuned task of yours, not by these figures."
_LOGGED = {
    "discriminator_auc": "detection AUC",
    "unigram_auc": "AUC of word frequency alone",
    "generator_loss": "generator loss (nats)",
    "masked_language_model_loss": "loss at masked words (nats)",
    "masked_language_model_accuracy": "accuracy at masked words",
    "correction_accuracy": "accuracy of corrections",
}
_ROLES = {
    "model": "the encoder, to be fine-tuned",
    "detector": "the encoder with the head that finds replaced words",
    "correction": "the encoder with the head that restores words",
    "electric": "the encoder with the head that gives each word an energy",
    "best": "the encoder after the step that the run's probe found best, to be fine-tuned",
    "generator": "the generator, a small language model that proposed the words during pretraining",
}


@dataclass(frozen=True)
class _Run:
    """What the files of a run tell."""

    path: Path
    config: PretrainConfig
    manifest: Manifest
    records: Sequence[Record]
    held_out: dict[str, Any]
    folders: Sequence[str]


def write_cards(run: Path) -> None:
    """Writes `README.md` into the folders of a run's networks, except where somebody edited it."""
    config = read_configuration(PretrainConfig, run / CONFIGURATION_NAME)
    held_out = json.loads((run / HELD_OUT_NAME).read_text("utf-8")) if (run / HELD_OUT_NAME).is_file() else {}
    folders = [name for name in _ROLES if (run / name / "config.json").is_file()]
    told = _Run(run, config, read_any_manifest(run), json_lines(run / JOURNAL_NAME), held_out, folders)
    for name in folders:
        write_card(run / name, render(_card(told, name)))


def require_own_run(model: str) -> None:
    """Raises ConfigurationError unless `model` is the folder of a finished pretraining run."""
    folder = Path(model)
    kind = read_any_manifest(folder).kind if (folder / MANIFEST_NAME).is_file() else ""
    if kind != "run":
        raise ConfigurationError(f"--add-to-card: {model} is no folder of a pretraining run; give one, or leave it out")


def add_held_out(run: Path, scores: dict[str, Any]) -> None:
    """Keeps the scores of `evaluate_detection` in the run's folder, and writes its cards anew."""
    write_text_durably(run / HELD_OUT_NAME, to_json(scores, indent=2) + "\n")
    write_cards(run)


def hub_names_of(config: PretrainConfig) -> dict[str, object]:
    """The models on the hub that a run begins with, for the facts of its manifest; known only while it begins."""
    named = (config.start.discriminator, config.start.generator, config.generator.source)
    on_hub = [name for name in named if name and is_hub_name(name)]
    return {
        "hub_models": on_hub,
        "base_model": config.start.discriminator if config.start.discriminator in on_hub else "",
    }


def _card(run: _Run, name: str) -> Card:
    folder, facts, config = facts_of_folder(run.path / name), run.manifest.facts, run.config
    title = config.card.name or public_name(str(run.path.resolve()))
    base = str(facts.get("base_model") or "")
    datasets = [found for source in facts.get("sources", ()) if (found := dataset_of(source))]
    has_base = bool(base) or not config.start.discriminator
    pipelines = {"AutoModelForMaskedLM": "fill-mask", "AutoModelForCausalLM": "text-generation"}
    return Card(
        title if name == "model" else f"{title}, {name}",
        config.card,
        pipelines.get(folder.opened_by, "feature-extraction"),
        ["pretraining", config.training.objective],
        "transformers" if folder.is_known else "electrain",
        base,
        datasets,
        _held_out_scores(run.held_out) if name not in ("generator", BEST_FOLDER) else [],
        {
            "": [
                _introduction(name, folder, run),
                "",
                *unsaid(config.card, has_base=has_base, has_datasets=bool(datasets)),
            ],
            "Use": _use(name, folder),
            "How it was made": _making(run, name),
            "Scores": _scores(run) if name != BEST_FOLDER else _scores_of_best(run),
            "Limits": _limits(name, folder, run),
            **_other_folders([other for other in run.folders if other != name]),
        },
    )


def _other_folders(names: Sequence[str]) -> dict[str, list[str]]:
    if not names:
        return {}
    where = (
        "They lie beside this folder on the machine that trained them. On the hub, `model` is the repository itself, "
        "and each of the others is a folder in it, which `from_pretrained(..., subfolder=...)` opens."
    )
    return {"The other networks of the run": [*(f"- `{name}`: {_ROLES[name]}" for name in names), "", where]}


def _introduction(name: str, folder: FolderFacts, run: _Run) -> str:
    objective = f"replaced token detection ({PAPER})" if _detects(run) else "masked language modelling"
    how = f"pretrained by {objective}"
    if name == "generator":
        kind = "causal" if folder.opened_by == "AutoModelForCausalLM" else "masked"
        how = f"trained as a {kind} language model beside an encoder that learned by {objective}"
    start = str(run.manifest.facts.get("base_model") or "") or public_name(run.config.start.discriminator)
    begun = f"further from the weights of {plain(start)}" if start else "from random weights"
    return f"This is {_ROLES[name]}: {folder.size}, {how}, {begun}, with electrain."


def _detects(run: _Run) -> bool:
    return run.config.training.objective == "replaced-token-detection"


def _use(name: str, folder: FolderFacts) -> list[str]:
    alone = [*(_filling() if _fills(folder) else opening(folder, _trial(folder))), *sentence_embeddings(folder)]
    if name != "model":
        return ["With transformers:", "", *alone]
    detects = ['electrain predict detect --model . "a text to judge"'] * (folder.opened_by == "AutoModelForPreTraining")
    return [
        "With electrain, in this folder:",
        "",
        "```sh",
        *detects,
        'electrain predict embed --model . "a text to compare"',
        "electrain finetune classification --model . --train train.tsv --validation validation.tsv --output tuned",
        "```",
        "",
        "With transformers:",
        "",
        *alone,
    ]


def _fills(folder: FolderFacts) -> bool:
    return folder.is_known and folder.opened_by == "AutoModelForMaskedLM"


def _filling() -> list[str]:
    return [
        "```python",
        "from transformers import pipeline",
        "",
        'ask = pipeline("fill-mask", model=".")  # this folder, or its name on the hub',
        'print(ask(f"a text with a {ask.tokenizer.mask_token}"))',
        "```",
    ]


def _trial(folder: FolderFacts) -> list[str]:
    ask = 'outputs = model(**tokenizer("a text to read", return_tensors="pt"))'
    shown = {
        "AutoModel": "print(outputs.last_hidden_state.mean(1))  # one vector for the text",
        "AutoModelForPreTraining": "print(outputs.logits.sigmoid())  # the probability that each token was replaced",
        "AutoModelForTokenClassification": "print(outputs.logits.softmax(-1))  # for each token: original, replaced",
    }.get(folder.opened_by, "print(outputs.logits.argmax(-1))  # for each token, the likeliest word")
    return [ask, shown]


def _making(run: _Run, name: str) -> list[str]:
    config, facts, training = run.config, run.manifest.facts, run.config.training
    machines = [record for record in run.records if record.get("event") == "machine"]
    steps, done = training.steps, int(facts.get("step", 0))
    whole = f"{done:,}" if run.manifest.finished else f"{done:,} of {steps:,}: the run was not finished"
    best = best_of(probed_steps(run.records))
    if name == BEST_FOLDER and best is not None:
        whole = f"{best.step:,}; the run went on to {whole}, and the other figures here are of all of it"
    rows = [
        ("texts", ", ".join(as_code(public_name(source)) for source in facts.get("sources", ())) or "not recorded"),
        ("steps", whole),
        ("tokens read", f"{int(facts.get('tokens', 0)):,}"),
        ("rows per step, tokens per row", f"{training.batch_rows:,}, {config.data.sequence_length:,}"),
        ("hours of training", f"{float(facts.get('seconds', 0.0)) / 3600:,.2f}"),
    ]
    if machines:
        last = machines[-1]
        rows += [
            ("machine", f"{plain(str(last.get('device')))}; processes: {last.get('processes')}"),
            ("number format", str(last.get("precision"))),
        ]
    torch = f"torch {machines[-1].get('torch')}, " if machines else ""
    rows.append(("versions", f"electrain {__version__}, {torch}transformers {transformers.__version__}"))
    kept = public_toml(to_toml(config), [str(name) for name in facts.get("hub_models", ())])
    folded = details(
        "The configuration: save it as config.toml, for electrain pretrain --config config.toml", "toml", kept
    )
    return [*table(("fact", "value"), rows), "", *folded]


def _held_out_scores(held_out: dict[str, Any]) -> list[Score]:
    auc = (held_out.get("discriminator") or {}).get("auc")
    if auc is None:
        return []
    source = str((held_out["settings"].get("data") or [""])[0])
    name = dataset_of(source)
    task = "token-classification"
    shown = name or public_name(source)
    return [Score(task, shown, bool(name), "roc_auc", "AUC of replaced token detection", float(auc))]


def _scores(run: _Run) -> list[str]:
    lines = [record for record in run.records if record.get("event") == "log"][-_RECENT_LINES:]
    recent = {
        key: statistics.fmean(values)
        for key in _LOGGED
        if (values := [value for line in lines if (value := number(line, key)) is not None])
    }
    content: list[str] = []
    if run.held_out:
        content += [*_held_out_table(run.held_out), ""]
    else:
        content += [
            "On text that the model has not seen: not measured. `electrain evaluate detection --model RUN --data "
            "HELD_OUT --add-to-card` measures it and adds it here.",
            "",
        ]
    if recent:
        content += [
            f"While training, mean of the last {counted(len(lines), 'logged step')}, each on one micro-batch before "
            "its update:",
            "",
            *table(("measure", "value"), [(_LOGGED[key], f"{value:.3f}") for key, value in recent.items()]),
            "",
        ]
    content += _probe(run)
    if not _detects(run):
        return [*content, _JUDGE]
    content.append(
        "An AUC of 0.5 is guessing. Word frequency alone reaches the AUC beside it, so only what is above that was "
        "learned from context. " + _JUDGE
    )
    return content


def _scores_of_best(run: _Run) -> list[str]:
    """The measures of the last steps are those of another network."""
    return [*_probe(run), _JUDGE]


def _probe(run: _Run) -> list[str]:
    """What the probe said of the best step and of the last one."""
    probed = probed_steps(run.records)
    best = best_of(probed)
    if best is None:
        return []
    told = [f"step {best.step:,}: {best}"] + [f"step {probed[-1].step:,}: {probed[-1]}"] * (best != probed[-1])
    what = "Accuracy of a linear classifier on the frozen encoder, on labelled texts that did not fit it"
    name = as_code(public_name(run.config.probe.labelled))
    return [f"{what}, from {name}: {'; '.join(told)}.", ""]


def _held_out_table(held_out: dict[str, Any]) -> list[str]:
    settings = held_out["settings"]
    data = ", ".join(as_code(public_name(str(source))) for source in settings.get("data", ()))
    intervals = held_out.get("intervals_95") or {}

    def shown(value: Any, key: str) -> str:
        if value is None:
            return "-"
        low_high = intervals.get(key)
        return f"{value:.3f}" + (f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else "")

    discriminator, baselines = held_out.get("discriminator") or {}, held_out.get("baselines") or {}
    rows = [
        ("detection AUC", shown(discriminator.get("auc"), "auc")),
        ("AUC of word frequency alone", shown(baselines.get("unigram_auc"), "unigram_auc")),
        ("precision, recall", f"{shown(discriminator.get('precision'), '')}, {shown(discriminator.get('recall'), '')}"),
        ("accuracy of corrections", shown((held_out.get("correction") or {}).get("accuracy"), "")),
    ]
    fraction = float(settings.get("masked_fraction") or 0.0)
    return [
        f"On {data}, which the user gave as held-out text: {counted(held_out.get('rows', 0), 'row')}, "
        f"{counted(held_out.get('scored_tokens', 0), 'token')}, {fraction:.0%} masked, "
        f"{held_out.get('replaced_fraction', 0.0):.1%} replaced, seed {settings.get('seed')}; "
        "in brackets the 95% interval by bootstrap over rows:",
        "",
        *table(("measure", "value"), [row for row in rows if row[1].strip("-, ")]),
    ]


def _limits(name: str, folder: FolderFacts, run: _Run) -> list[str]:
    lines = [
        "- It knows the language and the subjects of its texts, and repeats what is one-sided in them.",
        f"- It has {folder.size} and read {int(run.manifest.facts.get('tokens', 0)):,} tokens. "
        "A model of this size stores few facts, and does not reason.",
    ]
    if name == "generator":
        lines.append("- It was kept weak on purpose, so that its words can be told from real ones; it is no writer.")
    else:
        lines.append(
            "- By itself it answers no question and names no label: fine-tune it. Its vectors compare texts roughly."
        )
    if name != "generator" and _detects(run):
        lines += [
            "- It finds words that its own generator put in. It does not find text that another model wrote, nor every "
            "mistake.",
        ]
    return [*lines, *text_limits(folder)]
