"""Runs that start from given weights, on each device: in every way that the two networks share their embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from short_runs import short_configuration

from electrain.pretraining.run import pretrain

Trained = Callable[[str], Path]
MODERNBERT = "replaced_token_detection_modernbert"
SHARING: dict[str, tuple[str, dict[str, Any]]] = {
    "shared": ("replaced_token_detection_electra", {}),
    "shared, projected": (MODERNBERT, {}),
    "separate": ("replaced_token_detection_electra", {"embedding_sharing": "separate"}),
    "disentangled": ("disentangled", {}),
    "disentangled, projected": (MODERNBERT, {"embedding_sharing": "gradient-disentangled"}),
    "causal, projected": ("causal", {}),
}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("started", ["discriminator", "generator", "both"])
def test_a_run_starts_from_another(
    device: str, sharing: str, started: str, trained: Trained, tiny_shards: Path, tmp_path: Path
) -> None:
    name, generator = SHARING[sharing]
    source = trained(name)
    folders = {"discriminator": str(source / "model"), "generator": str(source / "generator")}
    start = folders if started == "both" else {started: folders[started]}
    config = short_configuration(name, start=start, generator=generator, training={"steps": 2})
    assert pretrain(config, tiny_shards, tmp_path / "run").is_finished
