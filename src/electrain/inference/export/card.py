"""The model card of an exported folder: what its source says of itself, and how the export answers."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from electrain import __version__
from electrain.finetuning.card import threshold_notes
from electrain.finetuning.tasks.settings import TASK_FILE_NAME, read_task_settings
from electrain.foundation.card import (
    CARD_NAME,
    SEAL_BEGINS,
    Card,
    CardConfig,
    plain,
    public_name,
    render,
    table,
    write_card,
)
from electrain.foundation.hub import is_hub_name
from electrain.inference.export.folder import Export

# What the card of the source says of the network itself, by its headings, and the headings here.
_TAKEN = {
    "How it was made": "How it was made",
    "Scores": "Scores before the export, with PyTorch",
    "Limits": "Limits",
}
_ASKED = {
    "answer": "--input questions.jsonl",
    "fill": '"a text with a [MASK]"',
}


def write_export_card(folder: Path, source: str, export: Export, agreement: dict[str, Any]) -> None:
    """Writes `README.md` into an exported folder.

    Args:
        source: the folder or hub id of the model that was exported. Its card, if it has one, is taken over.
        agreement: how the answers differ from those of PyTorch.
    """
    metadata, sections = _of_source(Path(source) / CARD_NAME)
    name = public_name(source)
    size = "with weights of eight bits" if export.quantize == "int8" else "with weights of 32 bits"
    task = export.tasks[0]
    asked = _ASKED.get(task, '"a text"')
    rows = [(plain(one), f"{100 * float(share):.1f}%") for one, share in agreement.get("equal_answers", {}).items()]
    use = ["With electrain, without PyTorch:", "", "```sh", f"electrain predict {task} --model . {asked}", "```"]
    if (folder / TASK_FILE_NAME).is_file():
        use += ["", *threshold_notes(read_task_settings(folder / TASK_FILE_NAME))]
    config = _config_of(metadata)
    card = Card(
        config.name or f"{name}, ONNX",
        config,
        str(metadata.get("pipeline_tag") or "feature-extraction"),
        ["onnx", *(["int8"] if export.quantize == "int8" else [])],
        "onnx",
        source if is_hub_name(source) else "",
        (),
        (),
        {
            "": [
                f"{plain(name)} as ONNX files, {size}, exported by electrain {__version__}. It answers: "
                f"{', '.join(map(plain, export.tasks))}."
            ],
            "Use": use,
            "How the export answers": [
                "Answers that are the same as those of PyTorch, compared when it was exported:",
                "",
                *table(("task", "equal answers"), rows),
            ],
            **{_TAKEN[heading]: lines for heading, lines in sections.items()},
        },
    )
    write_card(folder, render(card))


def _of_source(path: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The metadata of a card, and the sections to take over; nothing where there is no card that can be read."""
    from huggingface_hub import metadata_load

    if not path.is_file():
        return {}, {}
    try:
        metadata: dict[str, Any] = metadata_load(path) or {}
    except Exception:  # somebody edited it, and the export must not fail for that
        metadata = {}
    sections: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in path.read_text("utf-8", "replace").splitlines():
        if line.startswith(SEAL_BEGINS):
            lines = None
        elif line.startswith("## "):
            heading = line.removeprefix("## ").strip()
            lines = sections.setdefault(heading, []) if heading in _TAKEN else None
        elif lines is not None:
            lines.append(line)
    return metadata, {heading: "\n".join(lines).strip("\n").split("\n") for heading, lines in sections.items()}


def _config_of(metadata: dict[str, Any]) -> CardConfig:
    """What the source's metadata says that only its owner knows, as far as it is valid."""

    def names(key: str) -> tuple[str, ...]:
        value = metadata.get(key)
        return (value,) if isinstance(value, str) else tuple(map(str, value or ()))

    given: dict[str, Any] = {"language": names("language"), "datasets": names("datasets")}
    given |= {key: found[0] for key in ("license", "base_model") if (found := names(key))}
    config = CardConfig()
    for key, value in given.items():
        with suppress(ValueError):
            config = replace(config, **{key: value})
    return config
