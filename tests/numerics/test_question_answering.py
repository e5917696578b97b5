"""Question answering: every answer is found in some window, the best span is the best, and text comes back as given."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import ElectraConfig, ElectraForQuestionAnswering, ModernBertConfig, ModernBertForQuestionAnswering

from conftest import VOCABULARY
from electrain.data.labelled.examples import QuestionExample
from electrain.data.tokenizer.tokenizer import word_piece_tokenizer, wrap
from electrain.finetuning.tasks.question_answering import (
    ContextWindow,
    QuestionAnswering,
    TokenizedContext,
    best_span,
    window_bounds,
)
from electrain.finetuning.tasks.task import Row
from electrain.foundation.errors import ConfigurationError, DataError

CHARACTERS = [*"北京是中国的首都在哪里人口有多少万", "2100", "年", "，", "。", "？"]
TOKENIZER = wrap(
    word_piece_tokenizer(
        VOCABULARY | {token: len(VOCABULARY) + place for place, token in enumerate(CHARACTERS)}, cased=False
    )
)
WORDS = ["The", "cat", "sees", "Dogs", "unhappy", "quickly", "WHO", "is", "sad", ",", "zzz"]


def example_of(
    context: str, answer: str, *, question: str = "Who is happy?", start: int | None = None
) -> QuestionExample:
    return QuestionExample("q1", question, context, ((answer, context.index(answer) if start is None else start),))


def text_of_target(row: Row) -> str:
    """What the row's target says, read from the context."""
    first, last = (place - row.places.first + row.places.start for place in row.target)
    context: TokenizedContext = row.places.context
    return context.text[context.starts[first] : context.ends[last]]


class KnowsTheAnswer:
    """Its logits are 9 at a row's target and noise elsewhere, questions and padding included."""

    device = torch.device("cpu")

    def __init__(self, task: QuestionAnswering, examples: list[QuestionExample]) -> None:
        self.targets = {tuple(row.input_ids): row.target for row in task.rows(examples)}

    def __call__(self, input_ids: torch.Tensor, attention_mask: Any = None, **_: Any) -> SimpleNamespace:
        logits = torch.rand(2, *input_ids.shape, generator=torch.Generator().manual_seed(1))
        for number, ids in enumerate(input_ids):
            length = len(ids) if attention_mask is None else int(attention_mask[number].sum())
            first, last = self.targets[tuple(ids[:length].tolist())]
            logits[0, number, first] = logits[1, number, last] = 9
            logits[:, number, length:] = 30  # what is said of padding must not count
        return SimpleNamespace(start_logits=logits[0], end_logits=logits[1])


def tiny_model(kind: str) -> Any:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": len(TOKENIZER),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "num_labels": 2,
        "initializer_range": 0.5,
    }
    if kind == "electra":
        return ElectraForQuestionAnswering(ElectraConfig(embedding_size=16, **sizes)).eval()
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertForQuestionAnswering(ModernBertConfig(**special, **sizes)).eval()


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_windows_cover_the_context_and_every_short_stretch(tokens: int, room: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, room - 1))
    bounds = window_bounds(tokens, room, overlap)
    assert all(0 < end - start <= room for start, end in bounds) or tokens == 0
    assert sorted({token for bound in bounds for token in range(*bound)}) == list(range(tokens))
    assert len(set(bounds)) == len(bounds)
    for first in range(tokens):
        last = min(first + overlap, tokens - 1)
        assert any(start <= first and last < end for start, end in bounds)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=80), st.data())
def test_every_answer_that_fits_is_the_target_of_some_window(words: list[str], data: st.DataObject) -> None:
    context = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    answer = " ".join(words[first : first + data.draw(st.integers(1, 3))])
    start = len(" ".join([*words[:first], ""]))
    task = QuestionAnswering(TOKENIZER, longest_tokens=32, window_overlap_tokens=9)  # 3 words have 9 tokens at most
    rows = task.rows([example_of(context, answer, start=start)])
    found = [row for row in rows if row.target != (0, 0)]
    assert found
    for row in rows:
        assert len(row.input_ids) == len(row.token_type_ids) <= 32
        assert row.input_ids[: row.places.first].count(TOKENIZER.sep_token_id) == 1
        assert row.input_ids[row.places.first : -1] == row.places.context.token_ids[row.places.start : row.places.end]
    assert {text_of_target(row) for row in found} == {answer}


def test_a_row_is_what_the_tokenizer_makes_of_the_pair() -> None:
    example = example_of("The dogs see a quickly happy cat.", "cat")
    [row] = QuestionAnswering(TOKENIZER).rows([example])
    pair = TOKENIZER(example.question, example.context)
    assert (row.input_ids, row.token_type_ids) == (pair["input_ids"], pair["token_type_ids"])
    assert TOKENIZER.convert_ids_to_tokens(row.input_ids[row.target[0] : row.target[1] + 1]) == ["cat"]


def test_a_long_question_is_cut() -> None:
    task = QuestionAnswering(TOKENIZER, longest_tokens=40, window_overlap_tokens=5)
    for row in task.rows([example_of("cat dog " * 30, "cat", question="who sees dogs " * 30)]):
        assert (row.places.first, len(row.input_ids)) == (12, 40)
    assert QuestionAnswering(TOKENIZER).longest_question_tokens == 64


def test_an_answer_at_the_edge_of_a_window() -> None:
    task = QuestionAnswering(TOKENIZER, longest_tokens=24, window_overlap_tokens=4)
    context = "cat " * 40
    rows = task.rows([example_of(context, "cat")])
    room = rows[0].places.end
    inside = example_of(context, "cat cat", start=4 * (room - 2))
    across = example_of(context, "cat cat", start=4 * (room - 1))
    assert task.rows([inside])[0].target == (rows[0].places.first + room - 2, len(rows[0].input_ids) - 2)
    targets = [row.target for row in task.rows([across])]
    assert targets[0] == (0, 0)
    assert targets[1][1] == targets[1][0] + 1
    last = example_of(context, "cat", start=4 * 39)
    assert task.rows([last])[-1].target == (22, 22)  # before the last [SEP]


def test_no_target_without_an_answer() -> None:
    task = QuestionAnswering(TOKENIZER)
    [row] = task.rows([QuestionExample("q", "who?", "a cat")])
    assert row.target is None
    assert "first_token" not in task.collate([row, *task.rows([example_of("a cat", "cat")])]).tensors


@pytest.mark.parametrize(
    ("answers", "place"),
    [
        ([("cat", 2)], 2),
        ([("cat", 3)], 2),  # a little off: the nearest
        ([("cat", 1)], 2),
        ([("cat", 12)], 14),
        ([("cat", 9)], 14),
        ([("cat", 7)], 2),
        ([("cat", 99)], 14),
        ([("cat", -1)], 2),
        ([("dog", -1), ("sees", 6), ("cat", 2)], 6),  # the first that stands there
    ],
)
def test_the_target_is_where_the_answer_stands(answers: list[tuple[str, int]], place: int) -> None:
    example = QuestionExample("q", "who?", "a cat sees a  cat", tuple(answers))
    [row] = QuestionAnswering(TOKENIZER).rows([example])
    token = row.target[0] - row.places.first
    assert row.places.context.starts[token] == place
    assert text_of_target(row) in ("cat", "sees")


def test_an_answer_that_is_not_there_is_said() -> None:
    task = QuestionAnswering(TOKENIZER)
    for answer in ("dog", ""):
        with pytest.raises(DataError, match=rf"^file:3: the answer '{answer}' does not occur in its context"):
            task.rows([QuestionExample("q", "who?", "a cat", ((answer, 1),), source="file:3")])
    with pytest.raises(DataError, match="question q: the tokenizer drops all"):
        task.rows([QuestionExample("q", "who?", "a \u0007 cat", (("\u0007", 2),))])


def test_collated_rows() -> None:
    task = QuestionAnswering(TOKENIZER)
    rows = task.rows([example_of("a cat", "cat"), example_of("the dogs see a happy cat", "dogs")])
    collated = task.collate(rows)
    assert (collated.scored, collated.tokens) == (2, sum(len(row.input_ids) for row in rows))
    first = rows[0].places.first  # [CLS] who is happy ? [SEP] a cat [SEP]
    assert collated.tensors["is_candidate"][0].nonzero().flatten().tolist() == [0, first, first + 1]
    assert collated.tensors["first_token"].tolist() == [first + 1, first + 1]
    assert collated.tensors["attention_mask"].sum(1).tolist() == [len(row.input_ids) for row in rows]
    assert "token_type_ids" not in QuestionAnswering(TOKENIZER, with_token_types=False).collate(rows).tensors


@pytest.mark.parametrize("kind", ["electra", "modernbert"])
def test_loss_by_hand_and_independent_of_padding(kind: str) -> None:
    task = QuestionAnswering(TOKENIZER, with_token_types=kind == "electra")
    model = tiny_model(kind)
    rows = task.rows([example_of("a cat", "cat"), example_of("the dogs see a happy cat", "happy cat")])
    losses = []
    for row in rows:
        output = model(
            input_ids=torch.tensor([row.input_ids]),
            **({"token_type_ids": torch.tensor([row.token_type_ids])} if kind == "electra" else {}),
        )
        places = [0, *range(row.places.first, len(row.input_ids) - 1)]
        for logits, target in ((output.start_logits, row.target[0]), (output.end_logits, row.target[1])):
            losses.append(-functional.log_softmax(logits[0, places], 0)[places.index(target)] / 2)
    loss = task.loss(model, task.collate(rows).tensors)
    assert loss.item() == pytest.approx(sum(losses).item(), rel=1e-4)
    assert loss.requires_grad
    assert loss.dtype == torch.float32


def test_training_learns_where_the_answer_is() -> None:
    task = QuestionAnswering(TOKENIZER, longest_tokens=32, window_overlap_tokens=6)
    examples = [
        example_of(f"{'the dog sees a dog . ' * before}The CAT is happy . {'a dog is sad ! ' * 3}", "The CAT")
        for before in range(6)
    ]
    model = tiny_model("electra")
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    tensors = task.collate(task.rows(examples)).tensors
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, tensors).backward()
        optimizer.step()
    answers = task.answer(model, examples)
    assert [answer["answer"] for answer in answers] == ["The CAT"] * 6
    assert task.score(examples, answers) == {"exact_match": 100, "f1": 100}


@given(st.integers(1, 24), st.integers(1, 9), st.integers(1, 7), st.integers(0, 10**6))
def test_best_span_equals_brute_force(tokens: int, room: int, longest: int, seed: int) -> None:
    context = TokenizedContext("", [0] * tokens, np.zeros(tokens, np.int32), np.zeros(tokens, np.int32))
    bounds = window_bounds(tokens, room, room // 2)
    windows = [ContextWindow(context, start, end, 5) for start, end in bounds]
    logits = [np.random.default_rng([seed, start]).normal(size=(2, end - start)) * 3 for start, end in bounds]
    spans = [
        (start + first, start + last, both[0, first] + both[1, last])
        for (start, end), both in zip(bounds, logits, strict=True)
        for first in range(end - start)
        for last in range(first, min(first + longest, end - start))
    ]
    first, last, _ = max(spans, key=lambda span: span[2])
    total = sum(np.exp(score) for _, _, score in spans)
    of_best = sum(np.exp(score) for *place, score in spans if place == [first, last])
    found = best_span(windows, logits, longest)
    assert found is not None
    assert (found.first, found.last) == (first, last)
    assert found.probability == pytest.approx(of_best / total)


@pytest.mark.parametrize("kind", ["electra", "modernbert"])
def test_answers_of_a_network_equal_brute_force_in_any_batches(kind: str) -> None:
    task = QuestionAnswering(
        TOKENIZER, 32, 5, longest_answer_tokens=4, batch_tokens=100, with_token_types=kind == "electra"
    )
    examples = [
        QuestionExample(f"q{n}", "who is sad?", " ".join(WORDS[(n + m * m) % 11] for m in range(4 + 9 * n)))
        for n in range(4)
    ]
    model = tiny_model(kind)
    answers = task.answer(model, examples)
    assert [answer["id"] for answer in answers] == ["q0", "q1", "q2", "q3"]
    for number, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        assert example.context[answer["start"] : answer["end"]] == answer["answer"] != ""
        best = (-np.inf, "")
        for row in (row for row in task.rows(examples) if row.example == number):
            tensors = task.collate([row]).tensors
            output = model(**{name: tensors[name] for name in ("input_ids", "token_type_ids") if name in tensors})
            window = row.places
            for first in range(window.start, window.end):
                for last in range(first, min(first + 4, window.end)):
                    shift = window.first - window.start
                    score = output.start_logits[0, first + shift] + output.end_logits[0, last + shift]
                    text = example.context[window.context.starts[first] : window.context.ends[last]]
                    best = max(best, (score.item(), text))
        assert answer["answer"] == best[1]
        assert 0 < answer["score"] <= 1
    together = QuestionAnswering(TOKENIZER, 32, 5, longest_answer_tokens=4, with_token_types=kind == "electra")
    for one, other in zip(answers, together.answer(model, examples), strict=True):
        assert one == other | {"score": pytest.approx(one["score"], rel=1e-3)}


def test_a_model_that_knows_the_answer_is_right_through_long_contexts() -> None:
    task = QuestionAnswering(TOKENIZER, longest_tokens=48, window_overlap_tokens=12, batch_tokens=500)
    before = "the dog sees a cat . " * 60
    examples = [
        example_of(f"{before[: 42 * n]} Unhappy Dogs , {before}", "Unhappy Dogs ,", question=f"who {'is ' * n}sad?")
        for n in range(9)
    ]
    answers = task.answer(KnowsTheAnswer(task, examples), examples)
    assert len(task.rows(examples)) > 90
    assert {answer["answer"] for answer in answers} == {"Unhappy Dogs ,"}  # capitals from an uncased tokenizer
    assert task.score(examples, answers) == {"exact_match": 100, "f1": 100}


def test_chinese() -> None:
    task = QuestionAnswering(TOKENIZER, longest_tokens=40, window_overlap_tokens=10)
    context = "北京是中国的首都，" * 8 + "人口有2100万。" + "中国在哪里？" * 9
    examples = [QuestionExample("c", "人口有多少？", context, (("2100万", 75), ("2100", 75)))]
    answers = task.answer(KnowsTheAnswer(task, examples), examples)
    assert answers[0]["answer"] == "2100万" == context[answers[0]["start"] : answers[0]["end"]]
    assert answers[0]["score"] > 0.9
    assert task.score(examples, answers) == {"exact_match": 100, "f1": 100}
    partly = [{"answer": "口有2100万"}]
    assert task.score(examples, partly) == pytest.approx({"exact_match": 0, "f1": 200 * 2 / 6})  # by characters


def test_a_context_without_a_token_has_no_answer() -> None:
    task = QuestionAnswering(TOKENIZER)
    examples = [QuestionExample("empty", "who?", " "), QuestionExample("full", "who?", "Cat")]
    answers = task.answer(tiny_model("electra"), examples)
    assert answers[0] == {"id": "empty", "answer": "", "score": 0.0, "start": 0, "end": 0}
    assert answers[1] == {"id": "full", "answer": "Cat", "score": pytest.approx(1), "start": 0, "end": 3}


def test_spaces_that_a_tokenizer_counts_as_the_words_own_are_left_out() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "Ġcat": 5, "Ġdog": 6}
    backend = Tokenizer(models.BPE(vocabulary | {letter: 7 + n for n, letter in enumerate("Ġcatdog")}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    task = QuestionAnswering(wrap(backend))
    examples = [example_of("one dog  cat", "cat")]
    [answer] = task.answer(KnowsTheAnswer(task, examples), examples)
    assert (answer["answer"], answer["start"], answer["end"]) == ("cat", 9, 12)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"rows of longest_tokens = 128 leave 93 tokens.*choose 0 to 92"):
        QuestionAnswering(TOKENIZER, longest_tokens=128)
    with pytest.raises(ConfigurationError, match="longest_answer_tokens = 0"):
        QuestionAnswering(TOKENIZER, longest_answer_tokens=0)
    with pytest.raises(DataError, match=r"file:9: no accepted answer"):
        QuestionAnswering(TOKENIZER).score([QuestionExample("q", "who?", "Cat", source="file:9")], [{"answer": "Cat"}])
