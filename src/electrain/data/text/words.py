"""The words of a text that nobody has split yet: by Unicode's word boundaries, close to those of tagged corpora."""

from collections.abc import Sequence
from itertools import pairwise

import regex

from electrain.data.text.cleaning import clean_text

# Unicode Standard Annex 29, "Unicode Text Segmentation": default word boundaries, and extended grapheme clusters.
_BOUNDARY = regex.compile(r"\b", regex.WORD)
_CLUSTER = regex.compile(r"\X")
# Thai, Lao, Khmer, Burmese: written without spaces, and only a dictionary knows their words. The annex leaves them to
# such a dictionary; by default it parts every letter.
_WITHOUT_SPACES = regex.compile(r"[\p{Line_Break=Complex_Context}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*")
# The annex joins "a:b" for Swedish and "1;2" for some numbers, keeps "_name_" as one word, and the end of a sentence
# with a beginning that follows without a space ("end.Next"). Tagged corpora do not.
_APART = regex.compile(r"[:;]|(?<![^\W_])_+|_+(?![^\W_])|(?<=\p{Ll})\.(?=\p{Lu})")
# "90's" is one word, as "don't" is.
_AFTER_NUMBER = regex.compile(r"(?<=\p{Nd})['’](?=\p{L})")
_KATAKANA = regex.compile(r"[\p{Katakana}ー]+")


def split_words(text: str) -> list[str]:
    """The words of a text, each as it stands there: together they hold all its characters but white space.

    Each punctuation mark, emoji, Chinese character and hiragana is a word of its own; "don't", "3.14" and a run of
    katakana are one. No combining mark and no joiner is parted from its letter. The text between two spaces
    stays whole in scripts whose words only a dictionary can tell: Thai, Lao, Khmer, Burmese. Pieces that tokenizers
    never see, such as control characters, are left out.
    """
    clusters = {match.end() for match in _CLUSTER.finditer(text)} | {0}
    places = {match.start() for match in _BOUNDARY.finditer(text)} | {len(text)}
    for match in _APART.finditer(text):
        places |= {match.start(), match.end()}
    for match in _AFTER_NUMBER.finditer(text):
        places -= {match.start(), match.end()}
    unspaced = [match.span() for match in _WITHOUT_SPACES.finditer(text)]
    ends = {end for _, end in unspaced}
    for start, end in unspaced:
        places -= set(range(start + 1, end))
        if start in ends:
            places.discard(start)
    cuts = sorted(places & clusters | {0})
    pieces = (text[start:end].strip().strip("\ufeff") for start, end in pairwise(cuts))
    return [piece for piece in pieces if clean_text(piece)]


def joined_words(words: Sequence[str]) -> str:
    """The words as one text: East Asian characters and runs of katakana as they are written, others with spaces."""
    is_east_asian = all((len(word) == 1 and ord(word) > 0x2E7F) or _KATAKANA.fullmatch(word) for word in words)
    return ("" if is_east_asian else " ").join(words)
