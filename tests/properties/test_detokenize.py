"""Text from tokens: the rules by example, nothing but spaces changes, and byte-level tokenizers lose nothing at all."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from electrain.data.text.cleaning import clean_text
from electrain.data.tokenizer.plain_text import plain_ids
from electrain.data.tokenizer.targets import (
    is_word_piece,
    load_target_tokenizer,
    train_target_tokenizer,
    writing_ids,
    written_text,
)
from electrain.data.tokenizer.tokenizer import save_tokenizer, tokenizer_hash, word_piece_tokenizer, wrap
from electrain.finetuning.tasks.detokenize import detokenize
from electrain.foundation.errors import TokenizerError

TEXTS = [
    "The dog sees a cat, and the cat doesn't see the dog.",
    "Über den Bäumen fliegt ein großer Vogel.",
    "一只猫在房子里看书，房子里还有一只狗。",
    "Tabs\tand  two spaces, 3.5% of it 🙂\n",
]
MARKS = ["the", "Katze", "3", ".5", "don", "s", "猫", *"'\",.„“()-–。&$€@:"]
WORD_PIECE = word_piece_tokenizer({}, cased=True)
TOKENIZER = train_target_tokenizer(TEXTS * 3, 400)


def separated(text: str) -> str:
    """What WordPiece leaves of a text: words and marks with a space between each two."""
    pieces = WORD_PIECE.pre_tokenizer.pre_tokenize_str(WORD_PIECE.normalizer.normalize_str(text))
    return " ".join(piece for piece, _ in pieces)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The dog, the cat; and (perhaps) the bird: all of them!",
        "I don't think we'll see John's dogs' tails at 5 o'clock.",
        "He said: \"It isn't 3.5%, it's 1,240,000 [of them].\"",
        "'Hello', she said, and O'Brien left.",
        "“It’s a well-known fact,” he said. “The ’90s were loud…”",
        "In 1990, 300 people came at 10:30 p.m. to the U.S. embassy.",
        "A $40 shirt, #1 at me@example.com and/or www.example.org... Then?!",
        "R&D of Smith & Sons—pages 3–7.",
        "z. B. am 3. Mai: Vor- und Nachteile der E-Mail, „gut“ oder ‚schlecht‘.",
        "»So«, sagte Hans' Mutter, »kostet das 5 € – nicht mehr.«",
        "der „BBQ“-Grill",
        "我们使用Python3.5编写程序，“你好”（世界）！",
        "他说：“不是？”“是的。”《红楼梦》第3章，约占40%。",
        "P<0.05时，结果有意义:(1)甲;(2)乙。",
        "これはペンです。",
        "The word 中文 means Chinese.",
    ],
)
def test_normal_text_comes_back(text: str) -> None:
    assert detokenize(separated(text)) == text


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_only_spaces_change(text: str) -> None:
    result = detokenize(separated(text))
    assert result.replace(" ", "") == clean_text(separated(text)).replace(" ", "")
    assert result == result.strip()
    assert "  " not in result


@given(
    st.lists(
        st.sampled_from(
            [
                "the",
                "Katze",
                "3",
                ".5",
                "don",
                "'",
                '"',
                "t",
                ",",
                ".",
                "„",
                "“",
                "(",
                ")",
                "-",
                "–",
                "猫",
                "。",
                "&",
                "$",
                "s",
                "€",
                "@",
                ":",
            ]
        ),
        max_size=12,
    )
)
def test_any_order_of_marks(tokens: list[str]) -> None:
    assert detokenize(" ".join(tokens)).replace(" ", "") == "".join(tokens)


@given(st.lists(st.text(st.characters(categories=["Ll"], max_codepoint=0x24F), min_size=2, max_size=8), max_size=9))
def test_words_stay_apart(words: list[str]) -> None:
    assert detokenize(" ".join(words)) == " ".join(words)


@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(TEXTS))
def test_bytes_lose_nothing(text: str) -> None:
    (ids,) = plain_ids(TOKENIZER, [text])
    assert TOKENIZER.decode(ids) == text
    around = [TOKENIZER.cls_token_id, *ids, TOKENIZER.sep_token_id, TOKENIZER.pad_token_id]
    assert written_text(TOKENIZER, around) == text
    assert TOKENIZER(text, split_special_tokens=True)["input_ids"] == around[:-1]


def test_special_tokens_written_out_are_text() -> None:
    (ids,) = plain_ids(TOKENIZER, ["a [SEP] [PAD] b"])
    assert TOKENIZER.sep_token_id not in ids
    assert written_text(TOKENIZER, ids) == "a [SEP] [PAD] b"


def test_the_same_texts_give_the_same_vocabulary() -> None:
    again = train_target_tokenizer(iter(TEXTS * 3), 400)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert tokenizer_hash(again) == tokenizer_hash(TOKENIZER)
    assert 300 < len(TOKENIZER) <= 400
    assert TOKENIZER.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(train_target_tokenizer(TEXTS * 3, 290)) == 290
    with pytest.raises(TokenizerError, match="at least 261"):
        train_target_tokenizer(TEXTS, 260)


def test_it_reloads_alike(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path, with_token_types=False)
    for reloaded in (AutoTokenizer.from_pretrained(tmp_path), load_target_tokenizer(tmp_path)):
        for text in [*TEXTS, "unseen: żółw, 龍, 👩‍👩‍👧, don't ."]:
            ids = TOKENIZER(text)["input_ids"]
            assert reloaded(text)["input_ids"] == ids
            assert reloaded.decode(ids, skip_special_tokens=True) == text
        assert tuple(writing_ids(reloaded)) == (2, 3, 0)
        assert not is_word_piece(reloaded)


def test_a_causal_models_own_tokenizer_has_an_end_alone(tmp_path: Path) -> None:
    """GPT-2's tokenizer has neither [CLS] nor padding: its end of text stands for all."""
    backend = TOKENIZER.backend_tokenizer
    causal: Any = type(TOKENIZER)(tokenizer_object=backend, bos_token="[MASK]", eos_token="[MASK]")
    assert tuple(writing_ids(causal)) == (4, 4, 4)
    causal.save_pretrained(tmp_path / "causal")
    assert tuple(writing_ids(load_target_tokenizer(tmp_path / "causal"))) == (4, 4, 4)
    type(TOKENIZER)(tokenizer_object=backend).save_pretrained(tmp_path / "endless")
    with pytest.raises(TokenizerError, match="endless: has neither"):
        load_target_tokenizer(tmp_path / "endless")
    (tmp_path / "causal" / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="causal: the tokenizer cannot be read"):
        load_target_tokenizer(tmp_path / "causal")


def test_word_pieces_are_joined_and_nothing_is_rewritten() -> None:
    words = ["do", "not", "un", "##happy", "'s", "n't", ".", ",", "cats"]
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = wrap(word_piece_tokenizer(vocabulary, cased=True))
    assert is_word_piece(tokenizer)
    (ids,) = plain_ids(tokenizer, ["do not, unhappy cats."])
    assert written_text(tokenizer, [2, *ids, 3, 0, 0]) == "do not , unhappy cats ."
    assert tokenizer.decode(ids) != "do not , unhappy cats ."  # why its own decoder is not asked


def test_joiners_of_the_vocabulary_stay() -> None:
    assert detokenize("می\u200cروم .") == "می\u200cروم."
