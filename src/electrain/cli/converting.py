"""The verb that makes a model folder readable: `convert`."""

from pathlib import Path

from electrain.cli.options import print_json


def convert(model: Path, /, *, output: Path) -> None:
    """Convert a model folder with pytorch_model.bin to safetensors, which every verb reads.

    Pickles are read without running code of theirs, and what the folder holds besides weights is copied.

    Args:
        model: Folder with config.json and pytorch_model.bin.
        output: Folder to create for the converted model.
    """
    from electrain.models.conversion import convert_weights

    print_json({"output": str(output), **convert_weights(model, output)})
