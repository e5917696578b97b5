"""Asks the networks of a folder as `electrain predict` does, inside the test's own process."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from electrain.inference.asked import Input
from electrain.inference.predictor import open_networks


def asked(task: str, model: Path | str, texts: Iterable[str], **options: object) -> list[dict[str, Any]]:
    """What `electrain predict` prints for the texts."""
    inputs = (Input(text, number, f"input {number}") for number, text in enumerate(texts, start=1))
    return [answer.to_dict() for answer in open_networks(model).ask(task, inputs, options=options)]
