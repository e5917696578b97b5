"""Encoding for shards gives the tokens of the whole text, whichever way is taken through it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electrain.data.shards import encoding
from electrain.data.shards.encoding import Encoder
from electrain.data.text.cleaning import clean_text
from electrain.data.tokenizer.letters import Letters
from electrain.data.tokenizer.tokenizer import word_piece_tokenizer

PIECES = ["a", "b", "A", "##a", "##b", "##A", "é", "##é", "你", ".", "##.", "[", "]", "mask", "cls", "-", "\ue000"]
VOCABULARY = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES])}
WORDS = st.sampled_from([*PIECES, "Ab", "aÀb", "[MASK]", "[CLS] ", " ", "\n", "ab.a", "\u0301", "\u3000", "ﬁ", "İ"])
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=60).map("".join)


@pytest.mark.parametrize("letters", [Letters(cased=True), Letters(), Letters(keeps_accents=True)])
@given(texts=st.lists(TEXTS, max_size=4), part=st.sampled_from([1, 5, 512]))
def test_equals_the_tokenizer_on_whole_texts(letters: Letters, texts: list[str], part: int) -> None:
    backend = word_piece_tokenizer(VOCABULARY, letters=letters)
    encoder = Encoder(backend.to_str())
    assert encoder._ascii is not None
    backend.encode_special_tokens = True
    cleaned = [clean_text(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_PART_CHARACTERS", part)
        assert encoder.encode(cleaned) == [backend.encode(text, add_special_tokens=False).ids for text in cleaned]
