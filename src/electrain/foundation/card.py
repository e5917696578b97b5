"""Model cards: the `README.md` of a model folder, with the metadata that the Hugging Face hub reads."""

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from electrain.foundation.hub import is_hub_name
from electrain.foundation.output_folder import write_text_durably

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD_NAME = "README.md"
# The file into which rows in memory are written for a moment; nobody else could find it.
MEMORY_NAME = "rows-in-memory.jsonl"
# Anything that Markdown or HTML could take for a mark.
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|!~&])")
# How the last line of a card begins. That line holds the hash of all lines before, so that a card that somebody
# edited is known.
SEAL_BEGINS = "<!-- electrain writes this file again while it is unchanged: "
_SEAL = re.compile(rf"{SEAL_BEGINS}([0-9a-f]{{64}}) -->\n")
_LANGUAGE = re.compile("[a-z]{2,3}|code|multilingual")
_LICENSE = re.compile("[a-z0-9][a-z0-9.+-]{0,60}")
_DATASET = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_MODEL = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class CardConfig:
    """What README.md in the model folders says that electrain cannot know. What is empty is left out.

    Attributes:
        name: Name of the model. By default that of the run's folder.
        language: Codes of the languages of the texts, such as en or zh (ISO 639), or multilingual or code.
        license: License that you give the model, as the Hugging Face hub writes it, such as apache-2.0 or cc-by-4.0.
        datasets: Names of the data sets on the Hugging Face hub that the texts come from; those that a verb reads as
            hub:NAME are named without it.
        base_model: Name on the Hugging Face hub of the model that this one starts from; one that is read from the hub
            is named without it.
    """

    name: str = ""
    language: tuple[str, ...] = ()
    license: str = ""
    datasets: tuple[str, ...] = ()
    base_model: str = ""

    def __post_init__(self) -> None:
        for code in self.language:
            if not _LANGUAGE.fullmatch(code):
                raise ValueError(f'language = "{code}": must be a code of ISO 639, such as en or zh')
        if self.license and not _LICENSE.fullmatch(self.license):
            raise ValueError(f'license = "{self.license}": must be written as on the hub, such as apache-2.0')
        for name in self.datasets:
            if not _DATASET.fullmatch(name):
                raise ValueError(f'datasets = "{name}": must be the name of a data set on the hub, such as OWNER/NAME')
        if self.base_model and not _MODEL.fullmatch(self.base_model):
            raise ValueError(f'base_model = "{self.base_model}": must be the name of a model on the hub, OWNER/NAME')


@dataclass(frozen=True)
class Score:
    """One score, as the hub shows it beside the model.

    Attributes:
        task: identifier of the task on the hub, such as text-classification.
        dataset: name of the data set on the hub, or of a file.
        is_on_hub: True if the hub has the data set.
        metric: identifier of the metric on the hub, such as accuracy.
        name: how the metric is called here.
    """

    task: str
    dataset: str
    is_on_hub: bool
    metric: str
    name: str
    value: float


@dataclass(frozen=True)
class Card:
    """The content of a model card.

    Attributes:
        title: name of the model, any text.
        config: what the user says about it.
        pipeline: tag of the hub's task, such as fill-mask.
        tags: further tags.
        library: the library that opens the folder.
        base_model, datasets: names on the hub of what was read from there; those in `config` come before.
        scores: for the metadata.
        sections: Markdown below each heading.
    """

    title: str
    config: CardConfig
    pipeline: str
    tags: Sequence[str]
    library: str
    base_model: str
    datasets: Sequence[str]
    scores: Sequence[Score] = ()
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)


def render(card: Card) -> str:
    """The card as the text of `README.md`, sealed."""
    from huggingface_hub import ModelCardData

    config, title = card.config, one_line(card.title) or "model"
    data = ModelCardData(
        language=list(config.language) or None,
        license=config.license or None,
        library_name=card.library,
        pipeline_tag=card.pipeline,
        tags=["electrain", *card.tags],
        base_model=config.base_model or card.base_model or None,
        datasets=_unique([*config.datasets, *card.datasets]) or None,
        metrics=_unique(score.metric for score in card.scores) or None,
        model_name=title if card.scores else None,
        eval_results=_results(card.scores) or None,
    )
    lines = [f"# {plain(title)}", ""]
    for heading, content in card.sections.items():
        lines += [f"## {heading}", "", *content, ""] if heading else [*content, ""]
    return sealed_card(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines).rstrip("\n") + "\n")


def front_matter(config: CardConfig) -> str:
    """The least card with what the user says, by which the hub can be asked whether it takes that."""
    return render(Card("model", config, "feature-extraction", (), "transformers", "", ()))


def _results(scores: Iterable[Score]) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=score.task,
            dataset_type=score.dataset if score.is_on_hub else "local",
            dataset_name=score.dataset,
            metric_type=score.metric,
            metric_name=score.name,
            metric_value=round(score.value, 4),
        )
        for score in scores
    ]


def unsaid(config: CardConfig, *, has_base: bool, has_datasets: bool) -> list[str]:
    """The line that says which metadata is missing, and how it is filled in; empty if all is there."""
    known = {
        "language": bool(config.language),
        "license": bool(config.license),
        "datasets": bool(config.datasets) or has_datasets,
        **({} if has_base else {"base_model": bool(config.base_model)}),
    }
    missing = [name for name, is_said in known.items() if not is_said]
    if not missing:
        return []
    flags = {"language": "LANGUAGE", "license": "LICENSE", "datasets": "OWNER/NAME", "base_model": "OWNER/NAME"}
    options = " ".join(f"--card.{name.replace('_', '-')} {flags[name]}" for name in missing)
    named = ", ".join(f"`{name}`" for name in missing)
    return [
        f"The metadata above lacks {named}. Add it by hand, or run the training command again with "
        f"`--resume {options}`, which only writes this file anew."
    ]


def sealed_card(text: str) -> str:
    """A text with the line that tells whether somebody edited it."""
    seal = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return f"{text}\n{SEAL_BEGINS}{seal} -->\n"


def is_edited(text: str) -> bool:
    """True for a README that is not, or no longer, as `sealed_card` made it."""
    *before, last = text.splitlines(keepends=True) or [""]
    found, body = _SEAL.fullmatch(last), "".join(before).removesuffix("\n")
    return found is None or hashlib.sha256(body.encode("utf-8")).hexdigest() != found[1]


def write_card(folder: Path, text: str) -> None:
    """Writes a card into a model folder, unless a README is there that somebody edited."""
    if not has_edited_card(folder):
        write_text_durably(folder / CARD_NAME, text)


def has_edited_card(folder: Path) -> bool:
    """True if the folder has a README that is not as electrain wrote it."""
    path = folder / CARD_NAME
    return path.is_file() and is_edited(path.read_text("utf-8", "replace"))


def replace_section(folder: Path, heading: str, content: Sequence[str]) -> None:
    """Writes one section of a card anew, in its place; nothing where there is no such card, or somebody edited it."""
    path = folder / CARD_NAME
    if not path.is_file() or has_edited_card(folder):
        return
    *before, _ = path.read_text("utf-8").splitlines(keepends=True)
    section = "\n".join([f"## {heading}", "", *content, "", ""])
    # No line of a card's code begins with "## ".
    found = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    text = found.sub(lambda _: section, "".join(before), count=1)
    write_text_durably(path, sealed_card(text.rstrip("\n") + "\n"))


def carry_card(before: Path, now: Path) -> None:
    """Copies the README of a folder into the one that takes its place."""
    if (before / CARD_NAME).is_file():
        shutil.copyfile(before / CARD_NAME, now / CARD_NAME)


def one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def plain(text: str) -> str:
    """A text in one line that Markdown shows as it is."""
    return _MARKS.sub(r"\\\1", one_line(text)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def as_code(text: str) -> str:
    """A text in one line as code."""
    shown = one_line(text).replace("`", "'")
    return f"`{shown or ' '}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown. Its cells are Markdown already."""
    rule = ["---"] * len(header)
    escaped = ([re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in (header, rule, *rows))
    return [f"| {' | '.join(row)} |" for row in escaped]


def details(summary: str, language: str, text: str) -> list[str]:
    """A block of code that is folded away. Its lines must not begin with a fence."""
    body = text.rstrip("\n").split("\n")
    return ["<details>", f"<summary>{summary}</summary>", "", f"```{language}", *body, "```", "", "</details>"]


def public_name(source: str) -> str:
    """What a card may say of a source: its name on the hub, or the last part of its path, which says nothing private.

    The `model/` of a run is named by the run.
    """
    if Path(source).name == MEMORY_NAME:
        return "rows in memory"
    if source.startswith("hub:") or source.startswith("builtin:"):
        kind, _, name = source.partition(":")
        return f"{kind}:{Path(name).name}" if Path(name).exists() else source
    if is_hub_name(source):
        return source
    path = Path(source.replace("\\", "/"))
    if path.name in ("model", "", ".", "..") and source:
        path = path.resolve()
        path = path.parent if path.name == "model" else path
    return path.name


def public_toml(text: str, hub_names: Iterable[str]) -> str:
    """A configuration without [card] and the folders of the machine: of a path, the last part only.

    Args: hub_names: names of models on the hub, which stay whole.
    """
    kept = set(hub_names)

    def shortened(found: re.Match[str]) -> str:
        value = found[1]
        last = re.split(r"[/\\]+", value.rstrip("/\\"))[-1]
        return f'"{value if value in kept else last}"'

    text = text.partition("\n[card]\n")[0]
    return re.sub(r'"((?:[^"\\\n]|\\.)*)"', shortened, text)


def dataset_of(source: str) -> str:
    """The name on the hub of a data set that a verb read as `hub:NAME[/CONFIG][:SPLIT]`; "" for anything else."""
    if not source.startswith("hub:"):
        return ""
    location = source.removeprefix("hub:").partition(":")[0]
    name = "/".join(location.split("/")[:2])
    return "" if Path(location).exists() or not _DATASET.fullmatch(name) else name


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))
