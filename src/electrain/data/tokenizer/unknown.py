"""What a tokenizer loses: the share of [UNK] in a text, and the vocabulary that no text can reach.

A model learns nothing from [UNK]. A run on text that is nothing else ends "successfully" with a loss of 0.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tokenizers import Tokenizer, models

from electrain.data.tokenizer.tokenizer import frame_ids, plain_backend
from electrain.foundation.errors import TokenizerError
from electrain.foundation.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Shares of [UNK]. A vocabulary that fits its text has less than one in a thousand tokens, because only the rarest
# characters are left out; at one in a hundred something is wrong, and at one in five nearly every sentence has a hole.
WORTH_SAYING = 0.001
MANY = 0.01
TOO_MANY = 0.2
# So many tokens tell the share of a corpus, so that one of several days need not be prepared to its end to be refused.
ENOUGH_TOKENS = 1 << 23
UNREACHABLE_FRACTION = 0.1
# At one [UNK] in a hundred tokens, so much text holds thousands of them.
_NAMING_CHARACTERS = 1_000_000
_CHARACTERS_NAMED = 5
_RESERVED = re.compile(r"\[.*\]|<.*>")  # [unused1] and special tokens, which no text is meant to reach
_HELP = (
    "their characters are not in the vocabulary, or their words have more than 100 characters; train a tokenizer on "
    "this text, for sequences without spaces with `electrain tokenizer --kind characters`"
)
_WAY_OUT = "; to go on all the same, give --allow-unknown"

# Finds the unknown characters of a text that may have to be read again for it.
Characters = Callable[[], Sequence[str]]


def unknown_id(tokenizer: "PreTrainedTokenizerFast") -> int | None:
    """The id of [UNK]; None without one, or where it means something else too, such as GPT-2's end of text."""
    own: int | None = tokenizer.unk_token_id
    return None if own in frame_ids(tokenizer) else own


class UnknownShare(NamedTuple):
    """How many of the tokens of a text are [UNK]; special tokens do not count."""

    unknown: int
    tokens: int

    def require_few(
        self, what: str, remedy: str = _HELP, characters: Characters = lambda: [], *, way_out: str = _WAY_OUT
    ) -> None:
        """Raises: TokenizerError: more than `TOO_MANY` are; `what` was read, such as "the corpus"."""
        if self.unknown > TOO_MANY * self.tokens:
            described = self._described(characters)
            raise TokenizerError(f"{what}: {described}: {remedy}{way_out}")

    def say(self, what: str, remedy: str = _HELP, characters: Characters = lambda: []) -> None:
        """Says the share on stderr if it is worth saying, and warns if it is large.

        Args: characters: finds the unknown characters, the commonest first; it is asked only where it is said.
        """
        if self.unknown > MANY * self.tokens:
            say(f"warning: {what}: {self._described(characters)}: {remedy}")
        elif self.unknown > WORTH_SAYING * self.tokens:
            say(f"{what}: {self._described(characters)}")

    def _described(self, characters: Characters) -> str:
        share = f"{self.unknown / self.tokens:.1%} of the tokens are [UNK], from which a model learns nothing"
        named = ", ".join(f'"{character}"' for character in characters()[:_CHARACTERS_NAMED])
        return f"{share}, most often because of {named}" if named else share


def unknown_share(rows: Iterable[Sequence[int]], tokenizer: "PreTrainedTokenizerFast") -> UnknownShare:
    """The share of [UNK] in rows of token ids, which may hold special tokens."""
    own = unknown_id(tokenizer)
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update(row)
    tokens = counts.total() - sum(counts[token] for token in frame_ids(tokenizer))
    return UnknownShare(0 if own is None else counts[own], tokens)


def unknown_characters(texts: Iterable[str], tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """The characters for which words of the texts are [UNK], as the tokenizer reads them, the commonest first.

    Words that are too long have none. Only about the first `_NAMING_CHARACTERS` are read.
    """
    backend, own = plain_backend(tokenizer), unknown_id(tokenizer)
    backend.encode_special_tokens = True
    found: Counter[str] = Counter()
    left = _NAMING_CHARACTERS
    for text in texts:
        encoding = backend.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == own:
                word = backend.normalizer.normalize_str(text[start:end]) if backend.normalizer else text[start:end]
                found.update(_missing(word.strip(), backend))
        left -= len(text)
        if left < 0:
            break
    return sorted(found, key=lambda one: (-found[one], one))


def _missing(word: str, backend: Tokenizer) -> list[str]:
    """The characters of an unknown word that the vocabulary lacks, or lacks in their place: at the beginning or not."""
    is_word_piece = isinstance(backend.model, models.WordPiece)
    prefix, longest = (
        (backend.model.continuing_subword_prefix, backend.model.max_input_chars_per_word)
        if is_word_piece
        else ("", math.inf)
    )
    knows = backend.token_to_id
    lacking = [one for one in word if knows(one) is None and knows(prefix + one) is None]
    if lacking or len(word) > longest:
        return lacking
    return [one for place, one in enumerate(word) if knows(prefix + one if place else one) is None]


def unreachable(backend: Tokenizer) -> tuple[dict[str, str], int]:
    """The entries that a WordPiece tokenizer's own normaliser changes, with what it makes of them; and all that count.

    No text is ever cut into such an entry, however large it is. Entries that a text merely lacks do not count, nor do
    reserved ones, nor spaces that the normaliser puts around Chinese characters.
    """
    model, normalizer = backend.model, backend.normalizer
    if not isinstance(model, models.WordPiece) or normalizer is None:
        return {}, 0
    changed, count = {}, 0
    vocabulary = backend.get_vocab()
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        text = token.removeprefix("##")
        if _RESERVED.fullmatch(text) or not text.strip():
            continue
        count += 1
        # Plain lower-case text, most of every vocabulary, stays as it is.
        if not (text.isascii() and text.islower()):
            made = "".join(normalizer.normalize_str(text).split())
            if made != "".join(text.split()):
                changed[token] = made
    return changed, count


def say_unreachable(tokenizer: "PreTrainedTokenizerFast", what: str) -> None:
    """Says on stderr if a tenth of the vocabulary or more can never be reached, with an example and the remedy.

    Args: what: the tokenizer, for the message.
    """
    backend = tokenizer.backend_tokenizer
    changed, count = unreachable(backend)
    if len(changed) < UNREACHABLE_FRACTION * max(count, 1):
        return
    whole_words = [token for token in changed if token.isalpha() and len(token) > 2]
    example = whole_words[0] if whole_words else next(iter(changed))
    pieces = " ".join(backend.encode(example, add_special_tokens=False).tokens)
    lowered = sum(made == token.removeprefix("##").lower() for token, made in changed.items())
    if lowered > len(changed) / 2:
        why, remedy = "text is lower-cased", '"do_lower_case": false'
    else:
        why, remedy = "accents are stripped", '"do_lower_case": true, "strip_accents": false'
    say(
        f"warning: {what}: {len(changed):,} of {count:,} entries of the vocabulary are never reached, because {why}: "
        f'"{example}" becomes "{pieces}"; if that is not meant, give a folder with vocab.txt, without tokenizer.json, '
        f'and with tokenizer_config.json: {{"tokenizer_class": "BertTokenizer", {remedy}}}'
    )
