"""Texts that are longer than a row: what is read of them, and how the answers to several windows become one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_question_answering import TOKENIZER, WORDS

from electrain.data.labelled.examples import TextExample
from electrain.finetuning.tasks.classification import Classification, TextTask
from electrain.finetuning.tasks.long_texts import Cut, places_of_rows
from electrain.finetuning.tasks.regression import Regression

LABELS = ("a", "b")


def frame(first: int, second: int | None = None) -> list[int | None]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP]."""
    texts = [None, *[0] * first, None]
    return texts if second is None else [*texts, *[1] * second, None]


@pytest.mark.parametrize("cut", ["ends", "windows"])
@given(first=st.integers(0, 60), second=st.none() | st.integers(0, 60), longest=st.integers(8, 40))
def test_rows_fit_and_keep_order_and_frame(cut: Any, first: int, second: int | None, longest: int) -> None:
    texts = frame(first, second)
    rows, is_cut = places_of_rows(texts, longest, cut)
    special = {place for place, text in enumerate(texts) if text is None}
    for row in rows:
        assert len(row) <= longest
        assert row == sorted(set(row))
        assert special <= set(row)
    if len(texts) <= longest:
        assert (rows, is_cut) == ([list(range(len(texts)))], False)
        return
    assert all(len(row) == longest for row in rows)
    read = {place for row in rows for place in row}
    assert is_cut == (read != set(range(len(texts))))
    # The shorter text of a pair gives way only where it has more than half of the room.
    shorter, _ = sorted((first, second or 0))
    room = longest - len(special)
    assert is_cut is (cut == "ends" or shorter > room // 2)
    number = int((second or 0) >= first)
    assert sum(texts[place] == number for place in rows[0]) == room - min(shorter, room // 2)


def test_ends_are_in_the_proportion_of_the_paper() -> None:
    [row], is_cut = places_of_rows(frame(1000), 512, "ends")
    assert is_cut
    assert row == [0, *range(1, 129), *range(1001 - 382, 1001), 1001]
    [row], _ = places_of_rows(frame(100), 22, "ends")
    assert row == [0, *range(1, 6), *range(101 - 15, 101), 101]


def test_windows_overlap_by_a_quarter_and_the_last_is_full() -> None:
    rows, is_cut = places_of_rows(frame(45), 22, "windows")
    assert not is_cut
    assert [(row[1], row[-2], len(row)) for row in rows] == [(1, 20, 22), (16, 35, 22), (26, 45, 22)]


def test_windows_move_over_the_longer_text_of_a_pair() -> None:
    rows, is_cut = places_of_rows(frame(3, 20), 14, "windows")
    assert not is_cut
    assert all(row[:5] == [0, 1, 2, 3, 4] for row in rows)
    assert {place for row in rows for place in row} == set(range(26))
    rows, is_cut = places_of_rows(frame(20, 3), 14, "windows")
    assert not is_cut
    assert all(row[-4:] == [22, 23, 24, 25] for row in rows)


def text_of(words: int) -> str:
    return " ".join(WORDS[n * n % 11] for n in range(words))


@pytest.mark.parametrize("cut", ["beginning", "ends", "windows"])
def test_short_texts_are_the_same_whatever_is_cut(cut: Cut) -> None:
    examples = [TextExample("The cat", labels=("a",)), TextExample("Dogs", "the cat sees dogs", labels=("b",))]
    task = Classification(TOKENIZER, 32, LABELS, cut=cut)
    assert task.rows(examples) == Classification(TOKENIZER, 32, LABELS).rows(examples)
    assert [row.input_ids for row in task.rows(examples)] == [
        TOKENIZER("The cat")["input_ids"],
        TOKENIZER("Dogs", "the cat sees dogs")["input_ids"],
    ]


@pytest.mark.parametrize("is_pair", [False, True])
def test_each_window_is_trained_with_the_label_of_the_text(is_pair: bool) -> None:
    second = text_of(60) if is_pair else None
    examples = [TextExample(text_of(4), second, labels=("b",)), TextExample(text_of(60), labels=("a",))]
    task = Classification(TOKENIZER, 20, LABELS, cut="windows")
    rows = task.rows(examples)
    assert [row.example for row in rows] == sorted(row.example for row in rows)
    assert {(row.example, row.target) for row in rows} == {(0, 1), (1, 0)}
    assert len([row for row in rows if row.example == 1]) > 3
    for row in rows:
        assert len(row.input_ids) == len(row.token_type_ids) <= 20
        assert row.input_ids.count(TOKENIZER.sep_token_id) == (2 if is_pair and row.example == 0 else 1)


class CountsTokens:
    """Its logits are the number of tokens in the row and the id of the row's second token."""

    device = torch.device("cpu")

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def __call__(self, input_ids: torch.Tensor, attention_mask: Any = None, **_: Any) -> SimpleNamespace:
        lengths = torch.full((len(input_ids),), input_ids.shape[1])
        lengths = lengths if attention_mask is None else attention_mask.sum(1)
        both = torch.stack([input_ids[:, 1] / 10, lengths / 10], 1)
        return SimpleNamespace(logits=both[:, : self.columns])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_logits_of_windows_are_averaged(kind: str) -> None:
    is_regression = kind == "regression"
    task: TextTask = (
        Regression(TOKENIZER, 20, cut="windows", batch_tokens=60)
        if is_regression
        else Classification(TOKENIZER, 20, LABELS, cut="windows", batch_tokens=60)
    )
    examples = [TextExample(text_of(count)) for count in (50, 3, 90, 1)]
    model: Any = CountsTokens(1 if is_regression else 2)
    answers = task.answer(model, examples)
    rows = task.rows(examples)
    for number, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        own = [row.input_ids for row in rows if row.example == number]
        mean = torch.tensor([[ids[1] / 10, len(ids) / 10] for ids in own]).mean(0)
        assert answer["text"] == example.first
        if is_regression:
            assert answer["value"] == pytest.approx(mean[0].item())
        else:
            assert answer["probability"] == pytest.approx(mean.softmax(0).max().item())
