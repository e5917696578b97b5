"""Texts of any length as tokens with their places in the text, cut into overlapping windows that fit a model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain, mask_reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")


# The part of a window that it shares with the next one. Each shared token is answered in the window where it has more
# context on its shorter side.
OVERLAP_FRACTION = 0.25
# Texts that are read before the first of them is answered, so that texts of similar length share a batch.
TEXTS_PER_CHUNK = 256

# Chosen by counting how much of a batch is padding; docs/experiments.md, "Texts per second".
ENOUGH_TOKENS = 512


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model's tokens, without special ones."""

    text: str  # as the user gave it
    token_ids: list[int]
    spans: list[tuple[int, int]]  # index in `text` of each token's first character, and of the one after its last


@dataclass(frozen=True)
class Window:
    """A stretch of a text's tokens, from `start` to `end`, exclusive, that makes one row of a model's input."""

    text: int  # number of the text in its chunk
    start: int
    end: int
    answers_from: int  # the first of the tokens whose answers are taken from this window
    answers_to: int  # the one after the last of them


def chunks_of(texts: Iterable[T], size: int = TEXTS_PER_CHUNK) -> Iterator[list[T]]:
    """Lists of at most `size` texts, each yielded as soon as it is full."""
    rest = iter(texts)
    while chunk := list(islice(rest, size)):
        yield chunk


def tokenize_texts(
    tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str], *, reads_masks: bool = False
) -> list[TokenizedText]:
    """Cleans the texts as training text is cleaned, and tokenizes them; spans refer to the texts as given.

    Args: reads_masks: a mask token typed in a text is one; all other special tokens are always plain text.
    """
    cleaned = list(map(cleaner_for(tokenizer), texts))
    if reads_masks:
        encodings = mask_reader(tokenizer).encode_batch(cleaned, add_special_tokens=False)
    else:
        encodings = encode_plain(tokenizer, cleaned, add_special_tokens=False).encodings or []
    result = []
    for text, clean, encoding in zip(texts, cleaned, encodings, strict=True):
        places = places_in_original(text, clean)
        spans = [(places[start], places[end - 1] + 1) if start < end else (0, 0) for start, end in encoding.offsets]
        result.append(TokenizedText(text, encoding.ids, spans))
    return result


def places_in_original(text: str, cleaned: str) -> list[int]:
    """For each character of `cleaned`, its index in `text`.

    Cleaning only drops characters and joins white space, so one pass through both texts finds every character.
    """
    places, index = [], 0
    for character in cleaned:
        while text[index] != character and not (character == " " and text[index].isspace()):
            index += 1
        places.append(index)
        index += 1
    return places


def windows_of(text: int, tokens: int, longest: int) -> list[Window]:
    """Windows of at most `longest` tokens that cover a text; none for an empty one."""
    if tokens <= longest:
        return [Window(text, 0, tokens, 0, tokens)] if tokens else []
    stride = longest - int(longest * OVERLAP_FRACTION)
    # The last window is moved back to be full, so that no token is answered with a few tokens of context alone.
    starts = [*range(0, tokens - longest, stride), tokens - longest]
    windows = []
    for number, start in enumerate(starts):
        # Answers change over in the middle of each overlap, where both windows give a token equally little context.
        first = (start + starts[number - 1] + longest) // 2 if number else 0
        last = (starts[number + 1] + start + longest) // 2 if number + 1 < len(starts) else tokens
        windows.append(Window(text, start, start + longest, first, last))
    return windows


def batches_by_length(windows: Sequence[Window], batch_tokens: int) -> Iterator[list[Window]]:
    """The windows, longest first, in batches of at most `batch_tokens` tokens, padding and special tokens counted."""
    return longest_first(windows, batch_tokens, lambda window: window.end - window.start + 2)


def longest_first(items: Sequence[T], batch_tokens: int, tokens_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items, longest first, in batches that have at most `batch_tokens` tokens when padded to their longest.

    Longest first, because a batch that does not fit into memory then fails at the start of the work. A batch of
    `ENOUGH_TOKENS` or more takes no shorter items, which would be padded.

    Args: tokens_of: number of tokens of an item, special ones counted.
    """
    batch: list[T] = []
    for item in sorted(items, key=lambda item: -tokens_of(item)):
        longest = tokens_of(batch[0]) if batch else 0
        is_enough = longest * len(batch) >= ENOUGH_TOKENS and tokens_of(item) < longest
        if batch and (is_enough or longest * (len(batch) + 1) > batch_tokens):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
