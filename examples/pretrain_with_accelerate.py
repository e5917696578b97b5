"""Pretrains in a loop of your own with Accelerate.

python examples/pretrain_with_accelerate.py TOKENIZER OUTPUT
"""

import random
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

import electrain

STEPS_TO_ACCUMULATE = 2


def main() -> None:
    """Trains for an epoch; gradients of two micro-batches are added up, each weighed by its tokens."""
    tokenizer, output = sys.argv[1], Path(sys.argv[2])
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward_size": 64}
    module = electrain.ReplacedTokenDetection("tiny", tokenizer, {"encoder": sizes, "data": {"sequence_length": 24}})
    draw = random.Random(0)
    texts = [{"text": " ".join(draw.choices(["the cat sees a dog .", "a dog sees cats ."], k=3))} for _ in range(256)]
    accelerator = Accelerator()
    loader = DataLoader(texts, batch_size=8, shuffle=True, collate_fn=module.collator())
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    model, optimizer, loader = accelerator.prepare(module, optimizer, loader)
    batches = list(loader)
    for start in range(0, len(batches), STEPS_TO_ACCUMULATE):
        step = batches[start : start + STEPS_TO_ACCUMULATE]
        tokens = sum(int((batch["labels"] != -100).sum()) for batch in step)
        for batch in step:
            found = model(**batch, num_items_in_batch=tokens)
            accelerator.backward(found.loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if start % 8 == 0:
            accelerator.print({name: round(float(loss), 3) for name, loss in found.losses.items()})
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(output / "run")
        print(electrain.load(output / "run").fill("the cat [MASK] a dog ."))


if __name__ == "__main__":
    main()
