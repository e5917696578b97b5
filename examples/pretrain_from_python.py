"""From text to a pretrained model in one script: tokenizer, shards, pretraining, and a first answer.

python examples/pretrain_from_python.py FOLDER
"""

import random
import sys
from pathlib import Path

import electrain
from electrain.data.shards.prepare import prepare
from electrain.data.text.corpus import Document
from electrain.data.tokenizer.training import train_tokenizer


def invented_text(documents: int = 400) -> list[str]:
    """Sentences about animals that eat what they like; put your own documents here."""
    draw = random.Random(0)
    likes = {"cat": "fish", "dog": "meat", "cow": "grass", "hen": "corn", "bee": "honey", "ape": "fruit"}
    sentences = [f"the {who} eats {what} because every {who} likes {what} ." for who, what in likes.items()]
    return [" ".join(draw.choices(sentences, k=6)) for _ in range(documents)]


def main() -> None:
    """Trains for a few steps; more steps and text make a better model."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = invented_text()
    (folder / "corpus.txt").write_text("\n\n".join(texts), "utf-8")
    documents = [Document(text, f"document {number}") for number, text in enumerate(texts)]
    train_tokenizer(documents, folder / "tokenizer", 200, False)
    prepare([str(folder / "corpus.txt")], folder / "tokenizer", folder / "shards", processes=1)
    result = electrain.pretrain(
        "tiny",
        shards=folder / "shards",
        output=folder / "run",
        overrides={
            "encoder": {"layers": 2, "hidden_size": 64, "heads": 2, "feed_forward_size": 128},
            "training": {"steps": 60, "batch_rows": 16, "warmup_steps": 6, "compile": False},
            "data.sequence_length": 32,
        },
    )
    print(f"finished: {result.finished}, loss {result.metrics['loss']:.2f}, in {result.output}")
    print(electrain.load(result.output).detect("the cow eats fish because every cow likes grass ."))


if __name__ == "__main__":
    main()
