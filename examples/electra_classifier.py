"""Trains the founding article's `ELECTRAClassifier` to predict the next letter of a text.

python examples/electra_classifier.py
"""

import torch
from torch.nn import functional

from electrain import ELECTRAClassifier

TEXT = "the cat sees the dog and the dog sees the cat . " * 40


def main() -> None:
    """Prints the loss, which falls from ln 14 as the network learns the words."""
    torch.manual_seed(0)
    letters = sorted(set(TEXT))
    ids = torch.tensor([letters.index(letter) for letter in TEXT])
    windows = ids.unfold(0, 33, 8)  # (windows, 33): 32 letters, and the one after each
    network = ELECTRAClassifier(input_size=len(letters), hidden_size=32, num_layers=1, dropout=0.1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(40):
        logits = network(windows[:, :-1], batch_first=True)  # (windows, 32, letters)
        loss = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == 39:
            print(f"step {step}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
