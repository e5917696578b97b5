"""Says what lower-casing takes from the words of a corpus: capitals, accents, and the dots of Turkish letters."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from electrain.data.tokenizer.letters import Letters
from electrain.foundation.progress import say

_SAMPLE_CHARACTERS = 4_000_000
_MANY_WORDS = 0.01  # one word in a hundred: far more than English has in its borrowed words and names
# Of the characters, capitals inside words of both cases are less than 0.7% in encyclopedias, novels, reviews and
# e-mails in English, German and Chinese, 1.4% to 1.8% in source code and its documentation, and 19% in SMILES.
_MANY_CAPITALS = 0.05
_SHOWN_CHARACTERS = 30
_TURKISH = ("\u0131", "i\u0307")  # dotless i, and what the general rule makes of a dotted capital I


def say_lost_dots(backend: Tokenizer, unigram_counts: NDArray[np.int64]) -> None:
    """Says on stderr that a text is full of the dotless i, which the tokenizer takes the capital I away from.

    Args: unigram_counts: (vocabulary,) how often the text has each token.
    """
    if backend.normalizer is None or backend.normalizer.normalize_str("I") != "i":
        return
    dotless = [number for token, number in backend.get_vocab().items() if _TURKISH[0] in token]
    fraction = unigram_counts[dotless].sum() / max(unigram_counts.sum(), 1)
    if fraction >= _MANY_WORDS:
        say(
            f"prepare: {fraction:.1%} of the tokens hold a dotless \u0131, as in Turkish, but the tokenizer makes i of "
            "the capital I; train one with `electrain tokenizer --language tr` (or az), or --cased"
        )


class LetterSample:
    """The lower-cased words of the first megabytes of text, to tell how many lose an accent or the right i."""

    def __init__(self, letters: Letters) -> None:
        """Args: letters: how the tokenizer reads letters; it lower-cases."""
        self._letters, self._own = letters, letters.normalizer()
        self._lower = normalizers.BertNormalizer(strip_accents=False, lowercase=True)
        self._strip = normalizers.BertNormalizer(handle_chinese_chars=False, strip_accents=True, lowercase=True)
        self._split = pre_tokenizers.BertPreTokenizer()
        self._room = _SAMPLE_CHARACTERS
        self._words: Counter[str] = Counter()
        self._characters = self._capitals = 0  # white space does not count
        self._mixed = ""  # the first word with a capital inside, and small letters

    def add(self, text: str) -> None:
        """Counts the words of `text`, as long as the sample has room."""
        part = text[: self._room]
        self._room -= len(part)
        for word in part.split():
            self._characters += len(word)
            if not (word.islower() or word.isupper()) and (capitals := sum(map(str.isupper, word[1:]))):
                self._capitals += capitals
                self._mixed = self._mixed or word
        if part:
            words = self._split.pre_tokenize_str(self._lower.normalize_str(part))
            self._words.update(unicodedata.normalize("NFC", word) for word, _ in words)

    def say_what_is_lost(self) -> None:
        """Says on stderr if many words lose capitals, and if many lose accents or the right i, with an example."""
        fraction = self._capitals / max(self._characters, 1)
        if fraction >= _MANY_CAPITALS:
            say(
                f"tokenizer: lower-cased, though {fraction:.0%} of the characters are capitals inside words, such as "
                f'"{self._mixed[:_SHOWN_CHARACTERS]}": give --cased to keep capitals, or --kind characters'
            )
        if self._letters.language or self._say_turkish():
            return
        if not self._letters.keeps_accents:
            self._say_accents()

    def _say_turkish(self) -> bool:
        words = [word for word in self._words if any(letter in word for letter in _TURKISH)]
        fraction = self._fraction(words)
        if fraction < _MANY_WORDS:
            return False
        word = max(words, key=lambda one: (_TURKISH[0] in one, self._words[one])).replace(_TURKISH[1], "i")
        capital = word.replace("i", "\u0130").upper()
        wrong = unicodedata.normalize("NFC", self._own.normalize_str(capital))
        accents = "" if self._letters.keeps_accents else ", and accents are stripped"
        say(
            f"tokenizer: {fraction:.1%} of the words hold a dotless \u0131 or had a dotted \u0130, as in Turkish, but "
            f'I is lower-cased to i{accents}: "{capital}" becomes "{wrong}", not "{word}"; give --language tr (or az), '
            "or --cased"
        )
        return True

    def _say_accents(self) -> None:
        changed: dict[str, str] = {}
        for word in self._words:
            # Stripping also takes Hangul apart; NFC joins it again, so Korean words count as unchanged.
            plain = word if word.isascii() else unicodedata.normalize("NFC", self._strip.normalize_str(word))
            if plain != word:
                changed[word] = plain
        fraction = self._fraction(changed)
        if fraction < _MANY_WORDS:
            return
        # Best a word that becomes another word of the corpus, and of those the one whose rarer half is most frequent.
        word = max(changed, key=lambda word: (min(self._words[word], self._words[changed[word]]), self._words[word]))
        other = f', like the word "{changed[word]}" of the corpus' if changed[word] in self._words else ""
        say(
            f"tokenizer: accents are stripped with lower-casing, which changes {fraction:.1%} of the words: "
            f'"{word}" becomes "{changed[word]}"{other}; --keep-accents keeps accents, --cased capital letters too'
        )

    def _fraction(self, words: Iterable[str]) -> float:
        return sum(self._words[word] for word in words) / max(self._words.total(), 1)
