"""A user's text as tokens: a special token typed in it ("[SEP]") is plain text, as it is in pretraining.

Every verb that reads texts tokenizes them here. A tokenizer called directly would take a typed "[SEP]" for the end of a
text and a typed "[MASK]" for a gap: the model would see rows that it never saw in pretraining, and whoever writes the
text could steer the answer.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from electrain.data.text.cleaning import clean_text
from electrain.data.tokenizer.letters import keeps_joiners
from electrain.data.tokenizer.tokenizer import plain_backend

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerFast


def encode_plain(
    tokenizer: "PreTrainedTokenizerFast",
    texts: Sequence[str] | Sequence[Sequence[str]],
    seconds: Sequence[str | None] | None = None,
    **options: Any,
) -> "BatchEncoding":
    """What `tokenizer(texts, seconds, **options)` returns, with special tokens typed in the texts as plain text.

    The tokenizer must be a fast one. It still puts [CLS] and [SEP] around each text where `add_special_tokens` says so.
    """
    return tokenizer(texts, seconds, split_special_tokens=True, verbose=False, **options)  # type: ignore[arg-type]


def cleaner_for(tokenizer: "PreTrainedTokenizerFast") -> Callable[[str], str]:
    """Cleans a text as the training text of `tokenizer` was cleaned: see `clean_text`."""
    return partial(clean_text, keeps_joiners=keeps_joiners(tokenizer.backend_tokenizer))


def plain_ids(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, without [CLS] and [SEP]."""
    ids: list[list[int]] = encode_plain(tokenizer, texts, add_special_tokens=False)["input_ids"]
    return ids


@lru_cache(maxsize=4)  # copying a tokenizer takes longer than tokenizing a text with it
def mask_reader(tokenizer: "PreTrainedTokenizerFast") -> Tokenizer:
    """A copy of the Rust tokenizer that takes a typed mask token for one, and every other special token as plain text.

    The library can only switch off all special tokens at once, but it goes on to match added tokens that are not
    special: in the copy the mask token is such a one.
    """
    content = json.loads(plain_backend(tokenizer).to_str())
    for token in content["added_tokens"]:
        token["special"] &= token["content"] != tokenizer.mask_token
    backend = Tokenizer.from_str(json.dumps(content))
    backend.encode_special_tokens = True
    return backend
