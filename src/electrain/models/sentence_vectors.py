"""The files that tell sentence-transformers how an encoder's states become the vector of a text."""

import json
from pathlib import Path

from electrain.foundation.output_folder import write_text_durably

_MODULES = "sentence_transformers.models"
POOLING_FOLDER = "1_Pooling"


def write_sentence_transformer_files(folder: Path, hidden_size: int, longest_tokens: int) -> None:
    """Writes `modules.json` and what it names, so that `SentenceTransformer(folder)` gives the vectors of `embed`.

    They are in the form of the models on the hub, which versions of the library before and after 6.0 read. transformers
    reads none of them.

    Args:
        hidden_size: width of the encoder's states.
        longest_tokens: maximum number of tokens in a row; longer texts are cut there.
    """
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}.Transformer"},
        {"idx": 1, "name": "1", "path": POOLING_FOLDER, "type": f"{_MODULES}.Pooling"},
    ]
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_cls_token": False}
    pooling |= {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}
    (folder / POOLING_FOLDER).mkdir(exist_ok=True)
    for name, content in (
        ("modules.json", modules),
        ("sentence_bert_config.json", {"max_seq_length": longest_tokens, "do_lower_case": False}),
        (f"{POOLING_FOLDER}/config.json", pooling),
    ):
        write_text_durably(folder / name, json.dumps(content, indent=2) + "\n")
