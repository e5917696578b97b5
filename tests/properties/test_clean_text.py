"""Cleaning drops what the reference drops, counts it, and leaves the rest as it is."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from electrain.data.text.cleaning import clean, clean_text

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]))


def reference_clean(text: str) -> str:
    """google-research/electra, model/tokenization.py: `_clean_text`, `whitespace_tokenize`."""
    kept = []
    for character in text:
        is_control = character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf", "Cs")
        if character == "\0" or character == "\ufffd" or is_control:
            continue
        kept.append(" " if character in "\t\n\r" or unicodedata.category(character) == "Zs" else character)
    return " ".join("".join(kept).split())


@given(ANY_TEXT)
def test_equals_the_reference(text: str) -> None:
    assert clean_text(text) == reference_clean(text)


def test_equals_the_reference_for_every_character_of_unicode_14() -> None:
    later = {"\U0001343f", *(chr(code) for code in range(0x13439, 0x13440))}  # assigned by Unicode 15
    different = [
        hex(code)
        for code in range(0x110000)
        if chr(code) not in later and clean_text(f"a{chr(code)}b") != reference_clean(f"a{chr(code)}b")
    ]
    assert not different


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean(text)
    assert clean(once.text) == (once.text, 0, 0)


@given(st.binary(max_size=60))
def test_every_byte_is_kept_or_counted(content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    cleaned = clean(text)
    spaces = sum(clean_text(f"a{character}b") == "a b" for character in text)
    kept = len(cleaned.text.replace(" ", ""))
    assert kept + spaces + cleaned.dropped_characters + cleaned.invalid_bytes == len(text)


def test_counts_by_kind() -> None:
    assert clean("a\x00b\ufffd\t c\udce9\u200d") == ("ab c", 3, 1)
