"""Pretrains with Hugging Face's Trainer in place of `electrain pretrain`.

python examples/pretrain_with_trainer.py TOKENIZER OUTPUT
"""

import random
import sys
from pathlib import Path

from transformers import Trainer, TrainingArguments

import electrain


def invented_text(documents: int = 256) -> list[dict[str, str]]:
    """Rows for the collator; rows with input_ids, as a tokenizer gives them, would do as well."""
    draw = random.Random(0)
    return [
        {"text": " ".join(draw.choices(["the cat sees a dog .", "a dog sees cats ."], k=3))} for _ in range(documents)
    ]


def main() -> None:
    """Trains for a few steps, and asks the result."""
    tokenizer, output = sys.argv[1], Path(sys.argv[2])
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward_size": 64}
    module = electrain.ReplacedTokenDetection("tiny", tokenizer, {"encoder": sizes, "data": {"sequence_length": 24}})
    arguments = TrainingArguments(
        str(output / "trainer"),
        max_steps=20,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=2e-3,
        logging_steps=5,
        eval_strategy="steps",
        eval_steps=10,
        prediction_loss_only=True,
        remove_unused_columns=False,  # otherwise Trainer drops the column "text" of a data set
        disable_tqdm=True,
        report_to=[],
    )
    rows = invented_text()
    trainer = Trainer(
        module, arguments, train_dataset=rows[32:], eval_dataset=rows[:32], data_collator=module.collator()
    )
    trainer.train()
    module.save_pretrained(output / "run")  # with a folder for each head, as `pretrain` leaves them
    print(electrain.load(output / "run").detect("the cat sees a dog ."))


if __name__ == "__main__":
    main()
