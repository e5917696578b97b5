"""Writes the losses that the next change is compared with: `python tests/golden/regenerate.py [NAME ...]`.

Run it only for a change that is meant to change losses, and say in the commit why they changed.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from electrain.pretraining.run import pretrain  # noqa: E402
from tiny_pretraining import tiny_configuration, write_invented_shards  # noqa: E402

STEPS = 50
PUBLISHED_QUIRKS = ("colliding_positions", "no_bias_correction", "multiplied_warmup", "reference_packing")
BOTH = ["detection", "correction"]
OBJECTIVES: dict[str, dict[str, dict[str, Any]]] = {
    "replaced_token_detection_electra": {},
    "replaced_token_detection_modernbert": {"encoder": {"backbone": "modernbert"}},
    "replaced_token_detection_parity": {"parity": dict.fromkeys(PUBLISHED_QUIRKS, True)},
    "masked_language_modelling": {"training": {"objective": "masked-language-modelling"}},
    "causal": {"generator": {"kind": "causal"}},
    "unigram": {"generator": {"kind": "unigram", "clusters": 4}},
    "two_stage": {"generator": {"kind": "frozen", "own_stage_steps": 25, "size_fraction": 1.0}},
    "article": {
        "encoder": {"backbone": "modernbert"},
        "generator": {"kind": "causal"},
        "corruption": {"source": "generated", "missing_fraction": 1.0},
        "discriminator": {"heads": BOTH, "correction_at": "missing"},
    },
    "replace_mlm": {"discriminator": {"heads": ["correction"]}},
    "all_tokens": {"discriminator": {"heads": BOTH, "correction_at": "all"}},
    "electra_15_percent": {"discriminator": {"detection_at": "selected"}},
    "electric": {"discriminator": {"heads": ["detection", "electric"]}},
    "policy_gradient": {"generator": {"training": "policy-gradient"}},
    "gumbel": {"generator": {"training": "gumbel"}},
    "mixture": {"generator": {"training": "mixture"}, "encoder": {"backbone": "modernbert"}},
    "disentangled": {
        "generator": {"embedding_sharing": "gradient-disentangled"},
        "training": {"generator_peak_learning_rate": 1e-3},
    },
    "span": {"corruption": {"noise": "span"}},
    "shuffle": {"corruption": {"noise": "shuffle", "masked_fraction": 0.3}},
    "recurrent": {
        "encoder": {"backbone": "lstm", "embedding_size": 0},
        "discriminator": {"heads": ["correction"]},
        "generator": {"kind": "unigram"},
        "corruption": {"masked_fraction": 0.4},
        "training": {"peak_learning_rate": 2e-2, "batch_rows": 32},
    },
    "bert": {"encoder": {"backbone": "bert", "embedding_size": 0}},
    # Both kinds of output layer: of another width than the embeddings, and of the same.
    "sampled_softmax": {
        "encoder": {"backbone": "modernbert"},
        "generator": {"kind": "causal", "layers": 1},
        "discriminator": {"heads": BOTH},
        "corruption": {"masked_fraction": 0.4, "missing_fraction": 0.75},
        "training": {"softmax_words": 36},
    },
    "sampled_softmax_electra": {"discriminator": {"heads": BOTH}, "training": {"softmax_words": 36}},
    "sampled_softmax_masked_language_modelling": {
        "training": {"objective": "masked-language-modelling", "softmax_words": 36}
    },
}


def losses_of(name: str, shards: Path, output: Path) -> dict[str, list[float]]:
    """Every loss, and the gradient's norm, at each of the 50 steps of an objective that has it."""
    sections = {section: dict(table) for section, table in OBJECTIVES[name].items()}
    settings = {"steps": STEPS, "warmup_steps": 5, "log_every_steps": 1, "checkpoint_every_steps": STEPS}
    sections["training"] = {**settings, **sections.get("training", {})}
    pretrain(tiny_configuration(**sections), shards, output)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["event"] == "log"]
    keys = dict.fromkeys(key for line in logged for key in line)
    names = [key for key in keys if key.endswith("loss") or key == "gradient_norm"]
    return {key: [line[key] for line in logged if key in line] for key in names}


def main() -> None:
    """Regenerates the named files, or all."""
    with tempfile.TemporaryDirectory() as folder:
        write_invented_shards(Path(folder))
        for name in sys.argv[1:] or OBJECTIVES:
            losses = losses_of(name, Path(folder) / "shards", Path(folder) / name)
            lines = [f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in losses.items()]
            (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
