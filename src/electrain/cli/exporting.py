"""The verb that writes a model as ONNX files."""

from pathlib import Path
from typing import Literal

from electrain.cli.options import print_json
from electrain.cli.sharing import push_result, require_pushable
from electrain.foundation.progress import say


def export(
    *,
    model: str,
    output: Path,
    quantize: Literal["none", "int8"] = "none",
    data: Path | None = None,
    push_to_hub: str | None = None,
) -> None:
    """Export a model as ONNX files, which answer without PyTorch.

    `predict` and `load` take the new folder as a model. It is checked against PyTorch on real text before it is kept.

    Args:
        model: Run folder, model folder or hub id.
        output: Folder to create.
        quantize: Rounding of the weights. int8 makes the files four times smaller and the answers faster, and may
            change some of them.
        data: Texts to compare the answers on, one per line, as JSON lines or in a table. By default, sentences of the
            documentation that comes with Python.
        push_to_hub: Repository of the Hugging Face hub, OWNER/NAME, to which the folder is pushed; a new one is
            private. By default, nothing is pushed.
    """
    from electrain.foundation.card import CardConfig
    from electrain.inference.export.exporting import export_model

    require_pushable(push_to_hub, CardConfig())
    result = export_model(model, output, quantize, data)
    for task, share in result["agreement"]["equal_answers"].items():
        say(f"{task}: {100 * share:.1f}% of the answers are those of PyTorch")
    print_json(result)
    push_result("export", output, push_to_hub)
