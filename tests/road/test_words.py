"""A text is split into words by Unicode's rules: in no script is a mark torn off its letter."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from command_line import command
from electrain.data.text.words import joined_words, split_words

Capture = pytest.CaptureFixture[str]
# A text in each script, and its words with "|" between.
SCRIPTS = {
    "Hebrew with points": ("שָׁלוֹם עֲלֵיכֶם, צה\"ל", "שָׁלוֹם|עֲלֵיכֶם|,|צה\"ל"),
    "Arabic with vowels": ("مَرْحَبًا بِكُمْ!", "مَرْحَبًا|بِكُمْ|!"),
    "Persian with ZWNJ": ("می\u200cخواهم بروم.", "می\u200cخواهم|بروم|."),
    "Hindi": ("नमस्ते दुनिया, क्षत्रिय।", "नमस्ते|दुनिया|,|क्षत्रिय|।"),
    "Tamil": ("தமிழ் மொழி", "தமிழ்|மொழி"),
    "Thai": ("ภาษาไทย น้ำดี 2024", "ภาษาไทย|น้ำดี|2024"),
    "Khmer": ("ខ្មែរ ភាសា", "ខ្មែរ|ភាសា"),
    "Burmese": ("မြန်မာ", "မြန်မာ"),
    "Chinese": ("我爱北京2024年，𠀀好。iPhone手机", "我|爱|北|京|2024|年|，|𠀀|好|。|iPhone|手|机"),
    "Japanese": ("東京タワーは高い。", "東|京|タワー|は|高|い|。"),
    "Korean": ("한국어 문장이다.", "한국어|문장이다|."),
    "Korean in letters": (unicodedata.normalize("NFD", "한국어"), unicodedata.normalize("NFD", "한국어")),
    "Latin with combining accents": ("cafe\u0301 nai\u0308ve e\u0323\u0302", "cafe\u0301|nai\u0308ve|e\u0323\u0302"),
    "emoji": ("👩‍👩‍👧 👍🏽🇩🇪🇫🇷 1️⃣ a👍🏽b ☀️", "👩‍👩‍👧|👍🏽|🇩🇪|🇫🇷|1️⃣|a|👍🏽|b|☀️"),
    "English": (
        "Don't pay $3.14 (or 1,000%) to the U.K.'s well-known \"Ada\"... ok?",
        "Don't|pay|$|3.14|(|or|1,000|%|)|to|the|U.K|.|'|s|well|-|known|\"|Ada|\"|.|.|.|ok|?",
    ),
    "as before": (
        "the 90's and a:b 1;2 _Ada_ end.Next dogs' l’homme C++ 1/2",
        "the|90's|and|a|:|b|1|;|2|_|Ada|_|end|.|Next|dogs|'|l’homme|C|+|+|1|/|2",
    ),
}  # fmt: skip


def places(text: str, words: list[str]) -> list[int]:
    """Where each word begins, if each is found after the one before."""
    found, end = [], 0
    for word in words:
        found.append(text.index(word, end))
        end = found[-1] + len(word)
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_is_torn(script: str) -> None:
    text, expected = SCRIPTS[script]
    words = split_words(text)
    assert "|".join(words) == expected
    assert "".join(words) == "".join(text.split())
    starts = {match.start() for match in regex.finditer(r"\X", text)}
    assert set(places(text, words)) <= starts
    assert not any(unicodedata.category(word[0]).startswith("M") or word[0] in "\u200c\u200d" for word in words)


LETTERS = "".join(text for text, _ in SCRIPTS.values()) + " \u0301\u200d\ufe0f'’._:-"


@given(st.text(st.sampled_from(LETTERS), max_size=40))
def test_any_mixture_of_scripts_comes_back_whole(text: str) -> None:
    words = split_words(text)
    # A joiner alone is no word; every other character of the text is in a word, in its order.
    assert re.sub("[\u200c\u200d]", "", "".join(words)) == re.sub(r"[\s\u200c\u200d]", "", text)
    places(text, words)


def test_what_tokenizers_never_see_is_no_word() -> None:
    assert split_words(" \t\n") == []
    assert split_words("\ufeffAda \u200b \x00 lives\u2029") == ["Ada", "lives"]


def test_words_are_joined_as_they_are_written() -> None:
    assert joined_words(["北", "京"]) == "北京"
    assert joined_words(["東", "京", "タワー"]) == "東京タワー"
    assert joined_words(["한국어", "문장"]) == "한국어 문장"
    assert joined_words(["Ada", "Lovelace"]) == "Ada Lovelace"


def test_a_tagger_is_asked_about_whole_words(tiny_run: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    train = tmp_path / "a.conll"
    train.write_text("the O\ncat B-X\n\na O\ndog O\n")
    command(capsys, "finetune", "tagging", "--model", tiny_run(), "--train", train, "--validation", train, "--output",
            tmp_path / "out", "--training.epochs", "1")  # fmt: skip
    texts = [SCRIPTS[script][0] for script in ("Hebrew with points", "emoji", "Hindi")]
    code, answers, err = command(capsys, "predict", "tag", *texts, "--model", tmp_path / "out")
    assert code == 0, err
    expected = [SCRIPTS[script][1].split("|") for script in ("Hebrew with points", "emoji", "Hindi")]
    assert [answer["words"] for answer in answers] == expected
    assert all(len(answer["tags"]) == len(answer["words"]) for answer in answers)
