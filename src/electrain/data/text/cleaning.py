"""Cleans Unicode text as BERT's and ELECTRA's reference code does, and counts what it drops."""

import re
from collections import Counter
from typing import NamedTuple

# Unicode 14 categories Cc (without tab, line feed, carriage return), Cf and Cs, NUL and U+FFFD: what `_clean_text` and
# `_is_control` of the reference's tokenization.py drop. Frozen here so that Python's version does not change a corpus.
_DROPPED = re.compile(
    "[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u180e\u200b-\u200f"
    "\u202a-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffd\U000110bd\U000110cd"
    "\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
# Without the zero-width non-joiner and joiner, which some tokenizers keep.
_DROPPED_BUT_JOINERS = re.compile(_DROPPED.pattern.replace("\u200b-\u200f", "\u200b\u200e\u200f"))
# Bytes that are not UTF-8 are read as these lone surrogates (Python's "surrogateescape"), one for each byte.
_SURROGATE = re.compile("[\ud800-\udfff]")
_INVALID_BYTE = re.compile("[\udc80-\udcff]")


class CleanedText(NamedTuple):
    """A cleaned text and how much was taken out of it."""

    text: str  # without control characters; each run of white space is one space, and there is none at either end
    dropped_characters: int  # control and format characters, NUL, U+FFFD and lone surrogates
    invalid_bytes: int  # bytes of the file that were not UTF-8


def clean(text: str, *, keeps_joiners: bool = False) -> CleanedText:
    """Cleans `text` and counts what is dropped.

    Args: keeps_joiners: keep U+200C and U+200D, as the text's tokenizer does.
    Source: google-research/electra, model/tokenization.py: `_clean_text`, then `whitespace_tokenize`.
    """
    spaced = text.replace("\n", " ").replace("\t", " ").replace("\r", " ")
    # Most texts end here, ten times faster: printable text has nothing to drop and no white space but spaces.
    if spaced.isprintable() and "\ufffd" not in spaced:
        return CleanedText(" ".join(spaced.split()) if "  " in spaced else spaced.strip(), 0, 0)
    kept, dropped = (_DROPPED_BUT_JOINERS if keeps_joiners else _DROPPED).subn("", text)
    invalid = len(_INVALID_BYTE.findall(text)) if dropped else 0
    return CleanedText(" ".join(kept.split()), dropped - invalid, invalid)


def clean_text(text: str, *, keeps_joiners: bool = False) -> str:
    """`text` without control characters, and with one space for each run of white space; see `clean`."""
    return clean(text, keeps_joiners=keeps_joiners).text


def dropped_characters(text: str, *, keeps_joiners: bool = False) -> Counter[str]:
    """How often `clean` drops each character of `text`; bytes that are not UTF-8 do not count."""
    dropped = (_DROPPED_BUT_JOINERS if keeps_joiners else _DROPPED).findall(text)
    return Counter(one for one in dropped if not _INVALID_BYTE.match(one))


def without_surrogates(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which UTF-8 has no form for; the places of the others stay."""
    return _SURROGATE.sub("\ufffd", text)


def count_invalid_bytes(text: str) -> int:
    """How many of the bytes that `text` was decoded from were not UTF-8."""
    try:
        text.encode()  # ten times faster than a search, and nearly every text passes
    except UnicodeEncodeError:
        return len(_INVALID_BYTE.findall(text))
    return 0


def has_invalid_bytes(text: str) -> bool:
    """True if the bytes that `text` was decoded from were not all UTF-8."""
    return not text.isascii() and _INVALID_BYTE.search(text) is not None
