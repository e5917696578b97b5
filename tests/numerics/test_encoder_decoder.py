"""Encoder-decoders: every pair reloads alike with plain transformers; losses by hand; a tiny one learns its pairs."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertModel,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    EncoderDecoderModel,
    GPT2LMHeadModel,
)

from electrain.data.labelled.examples import PairedExample
from electrain.data.tokenizer.plain_text import plain_ids
from electrain.data.tokenizer.targets import train_target_tokenizer
from electrain.data.tokenizer.tokenizer import save_tokenizer, word_piece_tokenizer, wrap
from electrain.finetuning.tasks.metrics import translation_scores
from electrain.finetuning.tasks.sequence_to_sequence import SequenceToSequence
from electrain.finetuning.tasks.task import Task
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError
from electrain.models.backbones import EncoderConfig, choose_attention, encoder_configuration
from electrain.models.encoder_decoder import (
    DecoderConfig,
    build_encoder_decoder,
    load_encoder_decoder,
    save_encoder_decoder,
)
from tiny_pretraining import SPECIAL_IDS

WORDS = ["the", "a", "cat", "dog", "bird", "fish", "sees", "hears", "old", "young", "in", "house", "tree", ".", ","]
TARGETS = ["der", "ein", "hund", "sieht", "hört", "katze", "vogel", "fisch", "im", "haus", "baum", "alte", "junge", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAIRS = [
    PairedExample("the old cat sees a dog .", "die alte Katze sieht 3,5 Hunde – nicht?"),
    PairedExample("a dog hears", "ein Hund hört …"),
    PairedExample("the bird in the tree", "der Vogel im Baum"),
    PairedExample("a young fish , a house", "ein junger Fisch, ein Haus"),
    PairedExample("the dog sees the dog .", "“Der Hund sieht den Hund.”"),
    PairedExample("old house", "altes Haus 房子"),
    PairedExample("the young bird hears the old fish in the house .", "der junge Vogel hört den alten Fisch im Haus."),
    PairedExample("a tree", "ein  Baum"),
]


def word_piece(words: list[str]) -> Any:
    return wrap(word_piece_tokenizer({word: number for number, word in enumerate(SPECIAL + words)}, cased=True))


SOURCE_TOKENIZER = word_piece(WORDS)
OWN_TOKENIZER = train_target_tokenizer([pair.target for pair in PAIRS] * 2, 300)


def spread(configuration: Any, range_: float = 0.3) -> Any:
    configuration.initializer_range = range_  # outputs that differ clearly
    return configuration


def tiny_encoder(backbone: str, range_: float = 0.3, **sizes: int) -> Any:
    torch.manual_seed(3)
    shape = {"layers": 2, "hidden_size": 16, "feed_forward_size": 24, "heads": 2} | sizes
    if backbone == "electra":
        shape.setdefault("embedding_size", 8)
    configuration = encoder_configuration(
        EncoderConfig(backbone=backbone, **shape),  # type: ignore[arg-type]
        vocabulary_size=len(SOURCE_TOKENIZER),
        sequence_length=24,
        dropout=0.1,
        special_ids=SPECIAL_IDS,
    )
    return AutoModel.from_config(spread(configuration, range_))


def tiny_gpt2(vocabulary_size: int, width: int = 8) -> Any:
    torch.manual_seed(4)
    sizes = EncoderConfig(layers=1, hidden_size=width, feed_forward_size=16, heads=2)
    return GPT2LMHeadModel(
        spread(
            encoder_configuration(
                sizes,
                vocabulary_size=vocabulary_size,
                sequence_length=24,
                dropout=0.1,
                special_ids=SPECIAL_IDS,
                is_causal=True,
            )
        )
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside whose model/ stands a causal generator of half the width."""
    folder = tmp_path_factory.mktemp("run")
    tiny_gpt2(len(SOURCE_TOKENIZER)).save_pretrained(folder / "generator")
    save_tokenizer(SOURCE_TOKENIZER, folder / "generator")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Language models with a tokenizer of their own."""
    folder = tmp_path_factory.mktemp("folders")
    tokenizer = word_piece(TARGETS)
    sizes = EncoderConfig(layers=1, hidden_size=12, feed_forward_size=16, heads=2)
    electra = encoder_configuration(
        sizes, vocabulary_size=len(tokenizer), sequence_length=24, dropout=0.1, special_ids=SPECIAL_IDS
    )
    networks = {
        "gpt2": tiny_gpt2(len(tokenizer)),
        "electra": ElectraForMaskedLM(spread(electra)),
        "discriminator": ElectraForPreTraining(electra),
    }
    for name, network in networks.items():
        network.save_pretrained(folder / name)
        save_tokenizer(tokenizer, folder / name)
    return folder


def built(encoder: Any, decoder: DecoderConfig, source: Path | str = "run/model", dropout: float = 0.0) -> Any:
    own = {"encoder": SOURCE_TOKENIZER, "own": OWN_TOKENIZER, "folder": word_piece(TARGETS)}
    model = build_encoder_decoder(
        encoder, decoder, encoder_source=source, target_tokenizer=own[decoder.vocabulary], dropout=dropout
    ).eval()
    return model, own[decoder.vocabulary]


def task_for(model: Any, target_tokenizer: Any, **settings: Any) -> SequenceToSequence:
    with_types = model.encoder.config.model_type != "modernbert"
    return SequenceToSequence(
        SOURCE_TOKENIZER, name="translation", target_tokenizer=target_tokenizer, with_token_types=with_types, **settings
    )


KINDS = {
    "generator": DecoderConfig("generator"),
    "encoder": DecoderConfig("encoder"),
    "encoder, own words": DecoderConfig("encoder", vocabulary="own"),
    "fresh": DecoderConfig("fresh"),
    "fresh, narrow, own words": DecoderConfig(hidden_size=12, heads=3, layers=1, vocabulary="own"),
    "gpt2 folder": DecoderConfig("folder", "gpt2", vocabulary="folder"),
    "electra folder": DecoderConfig("folder", "electra", vocabulary="folder"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", ["electra", "bert", "modernbert"])
def test_every_pair_reloads_alike(backbone: str, kind: str, run: Path, folders: Path, tmp_path: Path) -> None:
    """Saved, then read by plain transformers: nothing missing, the same logits, the same beams."""
    decoder = KINDS[kind]
    if decoder.source:
        decoder = dataclasses.replace(decoder, source=str(folders / decoder.source))
    encoder = tiny_encoder(backbone)
    if backbone == "modernbert" and decoder.kind == "encoder":
        with pytest.raises(CheckpointError, match='kind = "fresh" or "generator"'):
            built(encoder, decoder, run / "model")
        return
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model, target_tokenizer = built(encoder, decoder, run / "model")
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert hasattr(model, "enc_to_dec_proj") == (model.decoder.config.hidden_size != 16)
    save_encoder_decoder(model, SOURCE_TOKENIZER, target_tokenizer, tmp_path)
    plain, report = EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert is_tied(plain.decoder)
    assert (tmp_path / "target_tokenizer").is_dir() == (decoder.vocabulary != "encoder")
    source = AutoTokenizer.from_pretrained(tmp_path)([PAIRS[0].text, PAIRS[1].text], padding=True, return_tensors="pt")
    assert ("token_type_ids" in source) == (backbone != "modernbert")
    read = torch.tensor([[2, 6, 9], [2, 11, 3]])
    with torch.no_grad():
        logits = model(**source, decoder_input_ids=read).logits
        torch.testing.assert_close(plain(**source, decoder_input_ids=read).logits, logits)
        task = task_for(model, target_tokenizer, longest_target_tokens=7, beams=3)
        written = plain.generate(**source, num_beams=3, max_new_tokens=7)
    loaded, tokenizer, writing = load_encoder_decoder(tmp_path)
    answers = task.answer(model, PAIRS[:2])
    again = dataclasses.replace(task, tokenizer=tokenizer, target_tokenizer=writing).answer(loaded, PAIRS[:2])
    assert again == answers
    assert [answer["text"] for answer in answers] == [pair.text for pair in PAIRS[:2]]
    folder = tmp_path / "target_tokenizer" if decoder.vocabulary != "encoder" else tmp_path
    plainly = AutoTokenizer.from_pretrained(folder).batch_decode(written, skip_special_tokens=True)
    assert [answer["output"].replace(" ", "") for answer in answers] == [text.replace(" ", "") for text in plainly]
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path).generation_config.decoder_start_token_id == 2


def is_tied(decoder: Any) -> bool:
    shared: bool = decoder.get_output_embeddings().weight is decoder.get_input_embeddings().weight
    return shared


@pytest.mark.parametrize("backbone", ["electra", "bert"])
def test_a_decoder_from_the_encoder_copies_its_weights(backbone: str) -> None:
    encoder = tiny_encoder(backbone)
    decoder = built(encoder, DecoderConfig("encoder"))[0].decoder
    theirs, ours = encoder.state_dict(), decoder.base_model.state_dict()
    copied = [name for name in theirs if name in ours]
    assert len(copied) > 30
    for name in copied:
        assert torch.equal(theirs[name], ours[name]), name
        assert theirs[name].data_ptr() != ours[name].data_ptr(), name
    assert all("crossattention" in name for name in ours if name not in theirs)
    assert is_tied(decoder)
    assert torch.equal(decoder.get_output_embeddings().weight, encoder.embeddings.word_embeddings.weight)


def test_own_words_leave_the_embeddings_fresh() -> None:
    encoder = tiny_encoder("electra")
    decoder = built(encoder, DecoderConfig("encoder", vocabulary="own"))[0].decoder
    assert decoder.get_input_embeddings().weight.shape == (len(OWN_TOKENIZER), 8)
    own, theirs = decoder.electra.encoder.state_dict(), encoder.encoder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in theirs.items())


def test_a_fresh_decoder_starts_from_the_encoders_words_where_they_fit() -> None:
    encoder = tiny_encoder("modernbert")
    embeddings = encoder.get_input_embeddings().weight
    decoder = built(encoder, DecoderConfig(), dropout=0.25)[0].decoder
    assert torch.equal(decoder.get_input_embeddings().weight, embeddings)
    assert decoder.get_input_embeddings().weight.data_ptr() != embeddings.data_ptr()
    assert (decoder.config.n_layer, decoder.config.n_inner, decoder.config.n_head) == (2, 24, 2)
    assert {decoder.config.attn_pdrop, decoder.config.embd_pdrop, decoder.config.resid_pdrop} == {0.25}
    narrow = built(tiny_encoder("electra"), DecoderConfig())[0].decoder  # embeddings of 8 in a width of 16
    assert narrow.get_input_embeddings().weight.std() < 0.05


def test_dropout_reaches_a_decoder_with_weights(run: Path) -> None:
    model, _ = built(tiny_encoder("electra"), DecoderConfig("generator"), run / "model", dropout=0.3)
    assert {module.p for module in model.decoder.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    model, _ = built(tiny_encoder("bert"), DecoderConfig("encoder"), dropout=0.3)
    assert {module.p for module in model.decoder.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    assert {module.p for module in model.encoder.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}


def test_a_bert_without_pooler_reloads_without_a_word(tmp_path: Path) -> None:
    encoder = BertModel(tiny_encoder("bert").config, add_pooling_layer=False)
    model, tokenizer = built(encoder, DecoderConfig())
    save_encoder_decoder(model, SOURCE_TOKENIZER, tokenizer, tmp_path)
    _, report = EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    frozen = [name for name, weight in load_encoder_decoder(tmp_path)[0].named_parameters() if not weight.requires_grad]
    assert frozen == ["encoder.pooler.dense.weight", "encoder.pooler.dense.bias"]


def test_what_cannot_be_joined_is_refused(run: Path, folders: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder("electra")
    with pytest.raises(CheckpointError, match=r"generator: no such generator; .*fresh"):
        built(encoder, DecoderConfig("generator"), tmp_path / "model")
    with pytest.raises(CheckpointError, match="lack generator_"):
        built(encoder, DecoderConfig("folder", str(folders / "discriminator"), vocabulary="folder"))
    decoder = DecoderConfig("folder", str(folders / "gpt2"), vocabulary="folder")
    with pytest.raises(CheckpointError, match="knows 19 tokens"):  # the vocabulary of another tokenizer
        build_encoder_decoder(encoder, decoder, encoder_source="x", target_tokenizer=OWN_TOKENIZER, dropout=0.0)
    with pytest.raises(ConfigurationError, match=r"\[decoder\] heads = 3"):
        built(encoder, DecoderConfig(heads=3))
    tiny_gpt2(7).save_pretrained(tmp_path / "generator")
    with pytest.raises(CheckpointError, match="one run"):
        built(encoder, DecoderConfig("generator"), tmp_path / "model")
    ElectraForMaskedLM(encoder.config).save_pretrained(tmp_path / "generator")
    with pytest.raises(CheckpointError, match=r"is of the kind electra; .*causal generator"):
        built(encoder, DecoderConfig("generator"), tmp_path / "model")
    with pytest.raises(CheckpointError, match="is no encoder-decoder"):
        load_encoder_decoder(run / "generator")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "folder", "vocabulary": "folder"}, "source"),
        ({"source": "x"}, "source"),
        ({"kind": "encoder", "layers": 2}, "layers"),
        ({"kind": "generator", "vocabulary": "own"}, "generator"),
        ({"kind": "folder", "source": "x"}, "vocabulary"),
        ({"tokenizer": "x"}, "tokenizer"),
        ({"vocabulary": "folder"}, "tokenizer"),
        ({"heads": -1}, "heads = -1"),
    ],
)
def test_contradictions_in_the_configuration(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**settings)


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_the_loss_equals_transformers_own(backbone: str) -> None:
    model, target_tokenizer = built(tiny_encoder(backbone), DecoderConfig(vocabulary="own", hidden_size=12, heads=2))
    task = task_for(model, target_tokenizer, label_smoothing=0.0)
    batch = task.collate(task.rows(PAIRS))
    inputs = {name: value for name, value in batch.tensors.items() if not name.startswith("decoder_")}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model(**inputs).loss * batch.scored
        ours = task.loss(model, batch.tensors)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert ours.dtype == torch.float32
    assert batch.scored == sum(len(ids) + 1 for ids in plain_ids(OWN_TOKENIZER, [pair.target for pair in PAIRS]))
    sources = sum(len(ids) + 2 for ids in plain_ids(SOURCE_TOKENIZER, [pair.text for pair in PAIRS]))
    assert batch.tokens == sources + batch.scored


def test_the_smoothed_loss_by_hand() -> None:
    model, target_tokenizer = built(tiny_encoder("electra"), DecoderConfig("encoder"))
    task = task_for(model, target_tokenizer, label_smoothing=0.2)
    rows = task.rows([PairedExample("a dog sees", "the cat"), PairedExample("a", "a")])
    assert [row.target for row in rows] == [[5, 7, 3], [6, 3]]
    batch = task.collate(rows)
    assert batch.tensors["decoder_input_ids"].tolist() == [[2, 5, 7], [2, 6, 0]]
    assert batch.tensors["labels"].tolist() == [[5, 7, 3], [6, 3, -100]]
    expected = 0.0
    with torch.no_grad():
        loss = task.loss(model, batch.tensors)
        for row in rows:
            ids = torch.tensor([row.input_ids])
            logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[2, *row.target[:-1]]])).logits[0]
            for place, token in enumerate(row.target):
                nats = -functional.log_softmax(logits[place].double(), dim=-1)
                expected += 0.8 * nats[token].item() + 0.2 * nats.mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "fresh"])
def test_cached_beam_search_equals_uncached(kind: Any) -> None:
    model, target_tokenizer = built(tiny_encoder("electra", 0.8), DecoderConfig(kind))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    task = task_for(model, target_tokenizer, longest_target_tokens=12, beams=4, no_repeat_ngram_tokens=2)
    rows = task.rows([PairedExample(pair.text, "") for pair in PAIRS])
    inputs = task.collate(rows).tensors
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    settings = {"num_beams": 4, "max_new_tokens": 12, "no_repeat_ngram_size": 2}
    cached = model.generate(**inputs, **settings, use_cache=True)
    assert len({tuple(row) for row in cached.tolist()}) > 2
    assert torch.equal(cached, model.generate(**inputs, **settings, use_cache=False))
    alone = [task.answer(model, [pair])[0] for pair in PAIRS]
    assert task.answer(model, PAIRS) == alone
    assert dataclasses.replace(task, batch_tokens=40).answer(model, PAIRS) == alone
    choose_attention(model, torch.device("cpu"), 24)
    assert task.answer(model, PAIRS) == alone


def test_a_tiny_model_learns_its_pairs() -> None:
    torch.manual_seed(0)
    encoder = tiny_encoder("electra", 0.02, hidden_size=32, feed_forward_size=64, embedding_size=32)
    model, target_tokenizer = built(encoder, DecoderConfig(layers=1, vocabulary="own"))
    task: Task[PairedExample] = task_for(model, target_tokenizer)
    batch = task.collate(task.rows(PAIRS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        (task.loss(model, batch.tensors) / batch.scored).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    answers = task.answer(model, PAIRS)
    assert [answer["output"] for answer in answers] == [pair.target for pair in PAIRS]
    scores = task.score(PAIRS, answers)
    assert scores[task.main_score] == pytest.approx(100)


def test_long_examples_are_cut_and_counted() -> None:
    task = SequenceToSequence(
        SOURCE_TOKENIZER, 6, name="summarization", target_tokenizer=SOURCE_TOKENIZER, longest_target_tokens=4
    )
    rows = task.rows(
        [PairedExample("the cat sees [SEP] a dog", "a cat sees a"), PairedExample("the old cat sees", "a dog .")]
    )
    assert rows[0].input_ids == [2, 5, 7, 11, 1, 3]  # [SEP] written out is no end
    assert [len(row.input_ids) for row in rows] == [6, 6]
    assert [row.target for row in rows] == [[6, 7, 11, 3], [6, 8, 18, 3]]
    assert (sum(row.is_cut for row in rows), sum(row.is_target_cut for row in rows)) == (1, 1)
    assert task.main_score == "rougeL"
    batch = task.collate(task.rows([PairedExample("a", "a"), PairedExample("a")]))
    assert "labels" not in batch.tensors
    assert batch.scored == 0
    with pytest.raises(DataError, match=r"lines.jsonl:3: has no target"):
        task.score([PairedExample("a", source="lines.jsonl:3")], [{"output": "a"}])


def test_scores_take_the_best_reference_and_know_chinese() -> None:
    summaries = SequenceToSequence(SOURCE_TOKENIZER, name="summarization", target_tokenizer=SOURCE_TOKENIZER)
    examples = [PairedExample("x", "a cat", ("the old dog",)), PairedExample("x", "", ("one bird",))]
    scores = summaries.score(examples, [{"output": "the old dog"}, {"output": "two fish"}])
    assert scores == {"rouge1": 50, "rouge2": 50, "rougeL": 50}
    chinese = summaries.score([PairedExample("x", "一只猫")], [{"output": "一只狗"}])
    assert chinese["rouge2"] == pytest.approx(50)
    translations = dataclasses.replace(summaries, name="translation")
    sentence = PairedExample("x", "一只猫在房子里。")
    assert translations.score([sentence], [{"output": sentence.target}])["bleu"] == pytest.approx(100)
    # A single long word, in which no run of four matches.
    assert translation_scores([[sentence.target]], [sentence.target], tokenize="13a")["bleu"] < 100
