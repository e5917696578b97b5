"""What an exported folder says of itself. Nothing here needs torch or onnxruntime."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from electrain import __version__
from electrain.foundation.errors import CheckpointError
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import as_kind, of_format, parse_json_file, sealed, unsealed
from electrain.foundation.output_folder import EXPORT_NAME, write_text_durably

FORMAT_VERSION = 1
_WAY_OUT = "copy the folder again, or export it again"
Quantization = Literal["none", "int8"]


@dataclass(frozen=True)
class ExportedNetwork:
    """One network of the folder, asked for one thing; several may be outputs of one file."""

    file: str  # the name of the ONNX file; of an encoder-decoder that of its encoder
    longest_row: int  # maximum number of tokens, special ones counted


@dataclass(frozen=True)
class ExportedDecoder:
    """The decoder of a network that writes."""

    file: str
    start: int  # ids of the token that it reads first,
    end: int  # of the one that it writes last,
    pad: int  # and of the one that fills up shorter rows
    positions: int  # the largest number of tokens that it reads


@dataclass(frozen=True)
class Export:
    """The content of `electrain-export.json`.

    Attributes:
        tasks: the tasks of `predict`, the model's own first.
        networks: by what they do: detect, embed, generator or correction or model (which fill gaps), generate, task.
        decoder: of summarization, translation and generation.
        vocabulary_size: one more than the tokenizer's largest id.
        with_token_types: the fine-tuned network reads token types.
        agreement: how its outputs and answers differ from PyTorch's, see docs/onnx.md.
    """

    tasks: tuple[str, ...]
    networks: dict[str, ExportedNetwork]
    quantize: Quantization = "none"
    decoder: ExportedDecoder | None = None
    vocabulary_size: int = 0
    with_token_types: bool = False
    agreement: dict[str, Any] = field(default_factory=dict)


def is_exported(source: Path | str) -> bool:
    """True for a folder that `electrain export` wrote."""
    return (Path(source) / EXPORT_NAME).is_file()


def write_export(export: Export, directory: Path) -> None:
    """Writes `electrain-export.json`."""
    content = {"format_version": FORMAT_VERSION, "made_by": f"electrain {__version__}", **asdict(export)}
    write_text_durably(directory / EXPORT_NAME, to_json(sealed(content), indent=2) + "\n")


def read_export(directory: Path) -> Export:
    """The content of `electrain-export.json`. Raises: CheckpointError: it is damaged, or of a newer format."""
    path = directory / EXPORT_NAME
    place, fault = str(path), CheckpointError
    value = unsealed(parse_json_file(path, fault, way_out=_WAY_OUT), place, fault, way_out=_WAY_OUT)
    content = of_format(value, FORMAT_VERSION, place, fault, way_out=_WAY_OUT)
    content.pop("made_by", None)
    export = as_kind(content, Export, place, fault, way_out=_WAY_OUT)
    files = [one.file for one in export.networks.values()] + ([export.decoder.file] if export.decoder else [])
    for name in files:
        if Path(name).name != name:
            raise CheckpointError(f"{path}: names a file outside its folder ({name}); {_WAY_OUT}")
    return export
