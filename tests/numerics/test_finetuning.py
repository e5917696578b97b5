"""Fine-tuning's own arithmetic: learning rates by layer, heads, and losses equal to Hugging Face's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForTokenClassification,
)

from electrain.data.labelled.examples import TaggedExample, TextExample
from electrain.data.tokenizer.tokenizer import word_piece_tokenizer, wrap
from electrain.finetuning.configuration import FinetuneConfig, resolved
from electrain.finetuning.tasks.classification import Classification
from electrain.finetuning.tasks.regression import Regression
from electrain.finetuning.tasks.tagging import IGNORED, Tagging, entities_of
from electrain.finetuning.tasks.task import inference_batches
from electrain.foundation.configuration import build_configuration
from electrain.models.task_heads import (
    ReferenceHead,
    fold_reference_head,
    reset_answer_layer,
    task_configuration,
    use_reference_head,
)
from electrain.training.optimizer import LayeredRates, build_layered_optimizers

WORDS = ["the", "a", "cat", "dog", "see", "sees", "happy", "sad", "##ly", "un", "##hap", "##py", "."]
TOKENIZER = wrap(
    word_piece_tokenizer(
        {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])},
        cased=False,
    )
)
SIZES: dict[str, Any] = {
    "vocab_size": 18,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def electra(**more: Any) -> Any:
    torch.manual_seed(0)
    return ElectraForSequenceClassification(ElectraConfig(**SIZES, embedding_size=16, **more)).eval()


@pytest.mark.parametrize(
    ("doubles", "expected"),
    [
        (False, {"embeddings": 0.5**4, "layer.0": 0.5**3, "layer.1": 0.5**2, "layer.2": 0.5, "classifier": 1.0}),
        (True, {"embeddings": 0.5**5, "layer.0": 0.5**4, "layer.1": 0.5**3, "layer.2": 0.5**2, "classifier": 1.0}),
    ],
)
def test_each_layer_learns_slower_than_the_one_above(doubles: bool, expected: dict[str, float]) -> None:
    """The reference multiplies by 0.8 to the power of (layers + 2 - depth), so that the top layer is decayed twice."""
    model = electra()
    (optimizer,) = build_layered_optimizers(model, LayeredRates(1e-3, 0.5, doubles_top_decay=doubles), 0.1)
    ratios, decays = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            ratios[id(parameter)], decays[id(parameter)] = group["rate_ratio"], group["weight_decay"]
    assert len(ratios) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        part = next(part for part in expected if part in name)
        assert ratios[id(parameter)] == expected[part], name
        assert decays[id(parameter)] == (0.1 if parameter.ndim == 2 else 0.0)


def test_layers_of_other_architectures_are_found() -> None:
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    for model in (
        ModernBertForTokenClassification(ModernBertConfig(**SIZES, **ends, cls_token_id=2, sep_token_id=3)),
        BertForSequenceClassification(BertConfig(**SIZES)),
        GPT2ForSequenceClassification(GPT2Config(n_embd=32, n_layer=3, n_head=2, vocab_size=20, **ends)),
    ):
        (optimizer,) = build_layered_optimizers(model, LayeredRates(1.0, 0.5), 0.0)
        ratio = {id(p): group["rate_ratio"] for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in model.named_parameters():
            wanted = 1.0
            if "embeddings" in name or ".wte." in name or ".wpe." in name:
                wanted = 0.5**4
            for layer in range(3):
                if any(f".{part}.{layer}." in name for part in ("layers", "layer", "h")):
                    wanted = 0.5 ** (3 - layer)
            assert ratio[id(parameter)] == wanted, name


def test_word_embeddings_alone_learn_faster() -> None:
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    for model, words in (
        (electra(), "electra.embeddings.word_embeddings.weight"),
        (
            ModernBertForTokenClassification(ModernBertConfig(**SIZES, **ends, cls_token_id=2, sep_token_id=3)),
            "model.embeddings.tok_embeddings.weight",
        ),
    ):
        (optimizer,) = build_layered_optimizers(model, LayeredRates(1e-3, 0.5, word_embedding_ratio=10.0), 0.0)
        ratio = {id(p): group["rate_ratio"] for group in optimizer.param_groups for p in group["params"]}
        embeddings = {name: ratio[id(p)] for name, p in model.named_parameters() if "embeddings" in name}
        assert embeddings.pop(words) == 10 * 0.5**4
        assert set(embeddings.values()) == {0.5**4}


@pytest.mark.parametrize("labels", [1, 3, 8, 9])
def test_the_reference_head_is_one_linear_layer_and_folds_exactly(labels: int) -> None:
    """In bfloat16 too, where the width has room for every logit and its negative."""
    model = electra(num_labels=labels)
    use_reference_head(model)
    assert isinstance(model.classifier, ReferenceHead)
    model.eval()
    torch.nn.init.normal_(model.classifier.out_proj.bias)
    ids = torch.randint(5, 18, (4, 9))
    logits = model(input_ids=ids).logits.detach()
    first = model.electra(input_ids=ids)[0][:, 0]
    expected = first @ model.classifier.out_proj.weight.T + model.classifier.out_proj.bias
    torch.testing.assert_close(logits, expected.detach())
    folded = fold_reference_head(model)
    assert type(folded.classifier).__name__ == "ElectraClassificationHead"
    torch.testing.assert_close(folded(input_ids=ids).logits.detach(), logits, rtol=0, atol=2e-5)
    if labels <= 8:
        with torch.autocast("cpu", torch.bfloat16):
            rounded = folded(input_ids=ids).logits.detach().float()
        torch.testing.assert_close(rounded, logits, rtol=0.05, atol=0.05)


def test_a_discriminators_answer_layer_is_not_taken_for_the_tasks() -> None:
    config = {**SIZES, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    model = ModernBertForTokenClassification(ModernBertConfig(**config))
    before = model.classifier.weight.clone()
    reset_answer_layer(model)
    assert (model.classifier.weight != before).all()
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.4)
    assert not model.classifier.bias.any()


@pytest.mark.parametrize("kind", ["labels", "pairs", "number", "several"])
def test_losses_and_answers_equal_hugging_faces(kind: str) -> None:
    examples = [
        TextExample("the cat sees", "a dog" if kind == "pairs" else None, ("b",), 1.5),
        TextExample("unhappy dog .", "the sad cat" if kind == "pairs" else None, ("a",), 3.0),
        TextExample(
            "a",
            "the cat sees the sad dog" if kind == "pairs" else None,
            ("a", "b") if kind == "several" else ("a",),
            0.0,
        ),
    ]
    labels = ("a", "b")
    task: Any = Classification(TOKENIZER, 20, labels=labels, has_many=kind == "several")
    problem = "multi_label_classification" if kind == "several" else "single_label_classification"
    if kind == "number":
        task, problem = Regression(TOKENIZER, 20), "regression"
    model = electra(num_labels=1 if kind == "number" else 2, problem_type=problem)
    collated = task.collate(task.rows(examples))
    encoded = TOKENIZER(
        [example.first for example in examples],
        [example.second for example in examples] if kind == "pairs" else None,
        padding=True,
        return_tensors="pt",
    )
    targets = {
        "number": torch.tensor([1.5, 3.0, 0.0]),
        "several": torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
    }.get(kind, torch.tensor([1, 0, 0]))
    theirs = model(**encoded, labels=targets)
    elements = targets.numel()
    assert float(task.loss(model, collated.tensors).detach()) == pytest.approx(
        float(theirs.loss.detach()) * elements, rel=1e-5
    )
    answers = task.answer(model, examples)
    for answer, logits in zip(answers, theirs.logits, strict=True):
        if kind == "number":
            assert answer["value"] == pytest.approx(float(logits[0]), abs=1e-5)
        elif kind == "several":
            assert answer["labels"] == [label for label, logit in zip(labels, logits, strict=True) if logit >= 0]
        else:
            assert answer["label"] == labels[int(logits.argmax())]
            assert answer["probability"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


def test_words_are_tagged_at_their_first_piece() -> None:
    torch.manual_seed(0)
    task = Tagging(TOKENIZER, 20, ("O", "B-X", "I-X"))
    examples = [TaggedExample(("the", "unhappy", "cat"), ("O", "B-X", "I-X")), TaggedExample(("a",), ("O",))]
    rows = task.rows(examples)
    pieces = ["[CLS]", "the", "un", "##hap", "##py", "cat", "[SEP]"]
    assert TOKENIZER.convert_ids_to_tokens(rows[0].input_ids) == pieces
    assert rows[0].target == [IGNORED, 0, 1, IGNORED, IGNORED, 2, IGNORED]
    collated = task.collate(rows)
    assert collated.scored == 4
    model = AutoModelForTokenClassification.from_config(ElectraConfig(**SIZES, embedding_size=16, num_labels=3)).eval()
    inputs = {name: value for name, value in collated.tensors.items() if name != "targets"}
    theirs = model(**inputs, labels=collated.tensors["targets"])
    assert float(task.loss(model, collated.tensors)) == pytest.approx(4 * float(theirs.loss), rel=1e-5)
    best = theirs.logits.argmax(-1)
    assert task.answer(model, examples)[0]["tags"] == [task.labels[int(best[0, place])] for place in (1, 2, 5)]


def test_windows_answer_each_word_of_a_long_sentence_once() -> None:
    task = Tagging(TOKENIZER, 9, ("O",))
    words = tuple(["the", "unhappy", "cat", "sees", "a", "dog", "."] * 4)
    rows = task.rows([TaggedExample(words, ("O",) * len(words))])
    assert len(rows) > 1
    assert all(len(row.input_ids) <= 9 for row in rows)
    assert sorted(word for row in rows for word in row.places if word is not None) == list(range(len(words)))


@pytest.mark.parametrize("word", ["\u200b", "\ud800"])
def test_a_word_without_tokens_is_outside(word: str) -> None:
    task = Tagging(TOKENIZER, 20, ("B-X", "O"))
    model = AutoModelForTokenClassification.from_config(ElectraConfig(**SIZES, embedding_size=16)).eval()
    assert task.answer(model, [TaggedExample(("cat", word, "dog"))])[0]["tags"][1] == "O"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-X I-X O", [("X", 1, 2)]),
        ("B-X B-X I-Y", [("X", 0, 0), ("X", 1, 1), ("Y", 2, 2)]),
        ("I-X I-X O I-X", [("X", 0, 1), ("X", 3, 3)]),
        ("S-X B-X I-X E-X O", [("X", 0, 0), ("X", 1, 3)]),
    ],
)
def test_entities_are_those_of_the_usual_scorer(tags: str, expected: list[tuple[str, int, int]]) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    found = entities_of(["w"] * len(tags.split()), tags.split())
    assert [(entity["type"], entity["first_word"], entity["last_word"]) for entity in found] == expected
    if "S-" not in tags:
        assert [tuple(entity) for entity in get_entities(tags.split())] == expected


def test_every_dropout_is_set(tmp_path: Path) -> None:
    for config in (
        ElectraConfig(**SIZES),
        ModernBertConfig(**{**SIZES, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}),
    ):
        made = task_configuration(config, "classification", ("a", "b", "c"), dropout=0.37, pooling="mean")
        model = AutoModelForSequenceClassification.from_config(made)
        rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        assert rates <= {0.37}
        assert 0.37 in rates
        assert made.id2label == {0: "a", 1: "b", 2: "c"}
        model.save_pretrained(tmp_path / made.model_type)
        assert config.num_labels == 2  # the pretrained configuration is left as it was


@pytest.mark.parametrize(
    ("width", "task", "rate", "decay", "epochs", "longest"),
    [
        (128, "tagging", 2e-3, 1.0, 3.0, 128),
        (256, "classification", 3e-4, 0.8, 3.0, 128),
        (768, "question-answering", 1e-4, 0.8, 2.0, 384),
        (1024, "regression", 5e-5, 0.9, 3.0, 128),
        (256, "translation", 1e-3, 1.0, 10.0, 128),
        (192, "translation", 6e-3, 1.0, 10.0, 128),
        (768, "summarization", 3e-4, 1.0, 10.0, 256),
    ],
)
def test_defaults_are_filled_in_by_task_and_width(
    width: int, task: Any, rate: float, decay: float, epochs: float, longest: int
) -> None:
    """Clark et al. 2020, table 7, for widths of 256, 768 and 1,024; what is given stays."""
    config = resolved(FinetuneConfig(), task, width)
    training = config.training
    assert (training.peak_learning_rate, training.layer_decay, training.epochs) == (rate, decay, epochs)
    assert config.data.longest_tokens == longest
    given = build_configuration(FinetuneConfig, {"training": {"peak_learning_rate": 1e-5, "epochs": 7.0}}, "test")
    kept = resolved(given, task, width).training
    assert (kept.peak_learning_rate, kept.layer_decay, kept.epochs) == (1e-5, decay, 7.0)


@pytest.mark.parametrize(
    ("width", "task", "optimizer", "chosen", "rate"),
    [
        (192, "summarization", "auto", "muon", 6e-3),
        (192, "translation", "adamw", "adamw", 1e-3),
        (256, "translation", "auto", "adamw", 1e-3),
        (256, "translation", "muon", "muon", 1e-3),
        (192, "tagging", "auto", "adamw", 2e-3),
        (192, "tagging", "muon", "muon", 2e-3),
    ],
)
def test_muon_is_chosen_where_it_was_measured(width: int, task: Any, optimizer: str, chosen: str, rate: float) -> None:
    given = build_configuration(FinetuneConfig, {"training": {"optimizer": optimizer}}, "test")
    training = resolved(given, task, width).training
    assert (training.optimizer, training.peak_learning_rate) == (chosen, rate)


@pytest.mark.parametrize(("width", "optimizer", "rate"), [(128, "muon", 6e-3), (768, "adamw", 1e-3)])
def test_a_fresh_decoder_has_muon_if_it_is_as_narrow_itself(width: int, optimizer: str, rate: float) -> None:
    given = build_configuration(FinetuneConfig, {"decoder": {"hidden_size": width}}, "test")
    training = resolved(given, "translation", 192).training
    assert (training.optimizer, training.peak_learning_rate) == (optimizer, rate)


def test_a_given_rate_is_one_of_adamw() -> None:
    """As those of earlier recipes and runs are."""
    given = build_configuration(FinetuneConfig, {"training": {"peak_learning_rate": 1e-3}}, "test")
    assert resolved(given, "translation", 192).training.optimizer == "adamw"


def test_a_decoder_that_was_trained_keeps_its_optimizer() -> None:
    copied = build_configuration(FinetuneConfig, {"decoder": {"kind": "generator"}}, "test")
    for training in (
        resolved(copied, "translation", 192).training,
        resolved(FinetuneConfig(), "summarization", 192, has_decoder=True).training,
    ):
        assert (training.optimizer, training.peak_learning_rate) == ("adamw", 1e-3)


def test_muon_takes_the_matrices_inside_both_halves() -> None:
    """With the rates of their layers; what is left is AdamW's."""
    model = electra()
    rates = LayeredRates(1e-3, 0.5)
    adamw, muon = build_layered_optimizers(model, rates, 0.1, torch.float32)
    held = {id(p): group for group in muon.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_inner = ".layer." in name and parameter.ndim == 2
        assert (id(parameter) in held) == is_inner, name
    assert {group["rate_ratio"] for group in muon.param_groups} == {0.5, 0.25, 0.125}
    assert {group["weight_decay"] for group in muon.param_groups} == {0.1}
    both = sum(len(group["params"]) for one in (adamw, muon) for group in one.param_groups)
    assert both == len(list(model.parameters()))


def test_batches_hold_no_more_than_asked() -> None:
    task = Classification(TOKENIZER, 20, labels=("a",))
    rows = task.rows([TextExample("cat " * (n % 12 + 1), labels=("a",)) for n in range(50)])
    batches = list(inference_batches(rows, 40))
    assert sorted(row.example for batch in batches for row in batch) == list(range(50))
    assert all(len(batch) == 1 or max(len(row.input_ids) for row in batch) * len(batch) <= 40 for batch in batches)


def test_entities_are_scored_where_all_tags_of_training_are_bio() -> None:
    """Not where the tags that a validation set happens to have are: scores of two sets must mean the same."""
    sentence = [TaggedExample(("cat", "dog"), ("O", "B-X"))]
    tagging = Tagging(TOKENIZER, labels=("O", "B-X", "NAME"))
    assert tagging.main_score == "accuracy"
    assert set(tagging.score(sentence, [{"tags": ["O", "B-X"]}])) == {"accuracy"}
    assert {"f1", "f1_X"} <= set(Tagging(TOKENIZER, labels=("O", "B-X")).score(sentence, [{"tags": ["O", "B-X"]}]))
