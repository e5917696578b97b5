"""Turns decoded WordPiece tokens, which have a space between any two words or punctuation marks, into normal text.

WordPiece does not keep where spaces stood. In English, German and Chinese they mostly follow from the marks
themselves. Where they do not (a dash or a hyphen, a list of numbers or a decimal), the more frequent reading is taken.
"""

import re
from typing import NamedTuple

from electrain.data.text.cleaning import clean_text


class _Sides(NamedTuple):
    """On which sides a token has no space."""

    left: bool = False
    right: bool = False


_FREE, _LEFT, _RIGHT, _BOTH = _Sides(), _Sides(left=True), _Sides(right=True), _Sides(True, True)

_ALWAYS = dict.fromkeys(",;!?)]}%…”°", _LEFT) | dict.fromkeys("([{¿¡„‚", _RIGHT) | dict.fromkeys("/\\_—", _BOTH)
# Marks that open or close, each with the mark that closes it. Languages differ in which of two marks comes first.
_CLOSED_BY = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "‚": "‘", "»": "«", "«": "»", "`": "`"}
_APOSTROPHES = "'’"
_SUFFIXES = frozenset(["s", "t", "m", "d", "re", "ve", "ll", "em", "S", "T", "M", "D", "RE", "VE", "LL"])
_ELISIONS = frozenset(["o", "O", "d", "D", "l", "L", "j", "J", "c", "qu", "Mc"])  # o'clock, O'Brien, d'Artagnan
_SUSPENDED = frozenset(["und", "oder", "bis", "sowie", "and", "or", "to"])  # Vor- und Nachteile, two- or threefold
_DOMAINS = frozenset(["com", "org", "net", "edu", "gov", "de", "uk", "co", "cn", "io", "eu"])
_ABBREVIATIONS = frozenset(["U.S", "U.K", "U.N", "D.C", "B.C", "A.D", "P.M", "A.M", "S.A", "N.Y", "Ph.D"])
_FORMULA = frozenset("<>=+*~·×±")  # without spaces in Chinese
IDEOGRAPHS = "\u2e80-\u2fff\u3040-\u30ff\u31c0-\u31ef\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WIDE_MARKS = "\u3000-\u303f\ufe30-\ufe4f\uff00-\uffef"
_IS_IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
_IS_WIDE_MARK = re.compile(f"[{_WIDE_MARKS}]")
_LATIN_WORD = re.compile(r"(?![\u2e80-\U0003ffff])[^\W\d_]")


def detokenize(tokens_text: str) -> str:
    """The text with the spaces of normal text; for instance "don't (3.5%)" from "don ' t ( 3 . 5 % )".

    Args:
        tokens_text: words, marks and Chinese characters with a space between any two, as the WordPiece tokenizer of
            BERT and ELECTRA decodes to.
    """
    tokens = clean_text(tokens_text, keeps_joiners=True).split()  # a joiner comes from the vocabulary
    if not tokens:
        return ""
    sides = _all_sides(tokens)
    ideographs = sum(_IS_IDEOGRAPH.match(token) is not None for token in tokens)
    is_chinese = ideographs > sum(_LATIN_WORD.match(token) is not None for token in tokens)
    pieces = [tokens[0]]
    for number in range(1, len(tokens)):
        before, after = tokens[number - 1], tokens[number]
        is_joined = sides[number - 1].right or sides[number].left or _joins_chinese(before, after, is_chinese)
        pieces.append(after if is_joined else " " + after)
    return "".join(pieces)


def _joins_chinese(before: str, after: str, is_chinese: bool) -> bool:
    """True where Chinese writing has no space: in Chinese text only Latin words and numbers are set apart."""
    if _IS_WIDE_MARK.match(before[-1]) or _IS_WIDE_MARK.match(after[0]):
        return True
    if is_chinese and ((before in _FORMULA or after in _FORMULA) or not (before[-1].isalnum() or after[0].isalnum())):
        return True
    ideographs = [_IS_IDEOGRAPH.match(before[-1]), _IS_IDEOGRAPH.match(after[0])]
    return any(ideographs) if is_chinese else all(ideographs)


def _all_sides(tokens: list[str]) -> list[_Sides]:
    open_marks: list[str] = []
    sides = []
    for number, token in enumerate(tokens):
        before = tokens[number - 1] if number else ""
        after = tokens[number + 1] if number + 1 < len(tokens) else ""
        if token in _APOSTROPHES and _is_apostrophe(before, after, token in open_marks):
            sides.append(_BOTH if _goes_on(before, after) else _LEFT)
        elif token in open_marks:
            del open_marks[open_marks.index(token) :]
            sides.append(_LEFT)
        elif token in _APOSTROPHES and re.fullmatch(r"\d\ds?", after):  # '90s
            sides.append(_RIGHT)
        elif token in _CLOSED_BY:
            open_marks.append(_CLOSED_BY[token])
            sides.append(_RIGHT)
        else:
            sides.append(_mark_sides(token, before, after))
    return sides


def _is_apostrophe(before: str, after: str, is_open: bool) -> bool:
    """True for an apostrophe that belongs to a word (don't, o'clock, Hans's), False for a quotation mark."""
    return _goes_on(before, after) or (not is_open and _is_word(before) and before[-1] in "sxzß" and after != "")


def _goes_on(before: str, after: str) -> bool:
    return _is_word(before) and (after in _SUFFIXES or (before in _ELISIONS and _is_word(after)))


def _is_word(token: str) -> bool:
    return token != "" and token[-1].isalnum()


def _mark_sides(token: str, before: str, after: str) -> _Sides:
    """The sides of a mark that opens and closes nothing; words have spaces on both sides."""
    if token in _ALWAYS:
        # 1,000; in a list of numbers a space follows the comma.
        is_thousand = token == "," and re.fullmatch(r"\d{1,3}", before) and re.fullmatch(r"\d{3}\D*", after)
        return _BOTH if is_thousand else _ALWAYS[token]
    if token == ".":
        return _BOTH if _goes_on_after_point(before, after) else _LEFT
    if token in (":", "–") and _is_number(before) and _is_number(after):
        return _BOTH
    if token in "-‐‑":
        return _hyphen_sides(before, after)
    if token in "$£€¥#@":
        is_inside = token == "@" and _is_word(before)
        return _Sides(is_inside, _is_word(after) and not (token in "€¥" and _is_number(before)))
    if token == "&" and all(side.isupper() and len(side) <= 2 for side in (before, after)):
        return _BOTH
    return _LEFT if token in (":", "’") else _FREE  # this ’ is no apostrophe, and closes nothing that was seen to open


def _is_number(token: str) -> bool:
    return token != "" and token[0].isdigit() and token[-1].isdigit()


def _goes_on_after_point(before: str, after: str) -> bool:
    """True within a decimal number, an ellipsis, an abbreviation or an internet address."""
    if before[-1:].isdigit() and after[:1].isdigit():
        return True
    if after == "." or before == "www":
        return True
    is_letters = len(before) == len(after) == 1 and before.islower() and after.islower()
    return is_letters or f"{before}.{after}" in _ABBREVIATIONS or (_is_word(before) and after in _DOMAINS)


def _hyphen_sides(before: str, after: str) -> _Sides:
    """No space within a word or a double hyphen, none on the left before "und", none on the right before a number."""
    if before in ("", *"([{"):
        return _RIGHT if _is_word(after) else _FREE
    if after in _SUSPENDED and not _is_number(before):
        return _LEFT
    return _BOTH if (_is_word(before) or before in "-“”)") and (_is_word(after) or after == "-") else _FREE
