"""Evaluations through whole folders: detection on held-out text and BLiMP, with hand-made checks of their figures."""

import dataclasses
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import electrain
from command_line import command, refuse
from electrain.data.shards.prepare import prepare
from electrain.data.shards.rows import PackedBatch, RowSource
from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.plain_text import plain_ids
from electrain.foundation.configuration import merge_tables, to_toml
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError, ElectrainError, TokenizerError
from electrain.inference.evaluate import judged_tokens
from electrain.inference.evaluate.blimp import blimp_table, evaluate_blimp
from electrain.inference.evaluate.detection import evaluate_detection
from electrain.inference.evaluate.judged_tokens import judge_rows
from electrain.inference.evaluate.sentence_scores import one_pass_scores, tokenize_sentences
from electrain.inference.model import load_detector
from electrain.inference.predict.corrupt import predict_corrupt
from electrain.pretraining.build import corrupted_micro_batch, vocabulary_of
from electrain.pretraining.run import pretrain
from tiny_pretraining import INVENTED_WORDS, SPECIAL_IDS, objective_of, tiny_configuration

Runs = Callable[..., Path]
TEXT = "the cat sees a dog . who saw the happy cats ? the sad dogs are unhappy , quickly ! a dog is x .\n"


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "held-out.txt"
    words = TEXT.split()
    random = np.random.default_rng(3)
    path.write_text(" ".join(random.choice(words, size=1500)))
    return str(path)


@pytest.mark.usefixtures("quick_pretraining")
def test_a_head_trained_at_masks_reads_masks(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rows are corrupted as published, without missing words, to compare it with other runs."""
    pretrain(tiny_configuration(**CORRUPTIONS["missing"]), tiny_shards, tmp_path / "run")
    read = []
    logits_of = judged_tokens.word_logits

    def remember(model: Any, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        read.append(token_ids)
        return logits_of(model, token_ids, *rest)

    monkeypatch.setattr(judged_tokens, "word_logits", remember)
    result = evaluate_detection(tmp_path / "run", [str(tiny_shards)], settings=SHORT, rows=30)
    masks = sum(int((ids == SPECIAL_IDS.mask).sum()) for ids in read)
    assert masks == result["generator"]["masked_tokens"] == 30 * 4


SHORT = tiny_configuration(data={"sequence_length": 24})

# Everything that training does to rows and that evaluation once did otherwise.
CORRUPTIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "falling": {
        "generator": {"temperature": 2.0, "last_temperature": 0.5},
        "corruption": {"masked_fraction": 0.4, "last_masked_fraction": 0.1},
    },
    "spans": {"corruption": {"noise": "span", "span_words": 2.0}},
    "shuffle": {"corruption": {"noise": "shuffle", "masked_fraction": 0.4}},
    "missing": {
        "corruption": {"missing_fraction": 0.5},
        "discriminator": {"heads": ["detection", "correction"], "correction_at": "missing"},
    },
    "unigram": {"generator": {"kind": "unigram", "clusters": 4}},
    "written": {
        "generator": {"kind": "causal", "temperature": 0.7},
        "corruption": {"source": "generated", "top_p": 0.8},
    },
    "padded": {"parity": {"reference_packing": True}},
    "gumbel": {"generator": {"training": "gumbel"}},
}


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_evaluation_and_prediction_corrupt_as_training_does(tiny_shards: Path, tmp_path: Path, name: str) -> None:
    """At the run's last step the objective, `evaluate detection` and `predict corrupt` show the same tokens."""
    steps = 3
    config = tiny_configuration(**merge_tables(CORRUPTIONS[name], {"training": {"steps": steps, "batch_rows": 30}}))
    pretrain(config, tiny_shards, tmp_path / "run")
    objective = objective_of(config, tiny_shards, spread=0.0)
    objective.load_state_dict(load_file(tmp_path / "run/checkpoints/step-3/model.safetensors"), strict=False)
    stream = open_shards(tiny_shards)
    rows = RowSource(stream, config.data, 5, reference_packing=config.parity.reference_packing)
    packed = rows.batch(np.arange(30))
    seeded = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=5))
    batch = corrupted_micro_batch(packed, seeded, vocabulary_of(stream.tokenizer), steps - 1)
    with torch.no_grad():
        seen = objective.eval()(objective.prepare(batch.rows, torch.device("cpu"))).observations
    result = evaluate_detection(tmp_path / "run", [str(tiny_shards)], rows=30, seed=5)
    is_scored = (
        ~batch.rows.is_special if batch.rows.is_detected is None else ~batch.rows.is_special & (batch.rows.is_detected)
    )
    replaced = seen["is_replaced"][is_scored].numpy()
    assert result["scored_tokens"] == int(is_scored.sum())
    assert result["replaced_fraction"] == pytest.approx(replaced.mean())
    logits = seen["replaced_logits"].double()[is_scored].numpy()
    expected = np.where(replaced, np.logaddexp(0, -logits), np.logaddexp(0, logits)).mean()
    assert result["discriminator"]["log_loss"] == pytest.approx(expected, rel=1e-4)
    if "generator_hits" in seen:
        assert result["generator"]["masked_tokens"] == int(seen["generator_asked"])
        asked = float(seen["generator_entropy"] / seen["generator_asked"])
        assert result["generator"]["entropy"] == pytest.approx(asked, rel=1e-4)
    text = " ".join(INVENTED_WORDS[3:20])
    shown = list(predict_corrupt(tmp_path / "run", [text] * 8, seed=5))
    ids = np.array([plain_ids(stream.tokenizer, [text])[0]] * 8)
    again = _packed(ids, stream.tokenizer)
    one = corrupted_micro_batch(again, seeded, vocabulary_of(stream.tokenizer), steps - 1)
    with torch.no_grad():
        wanted = objective(objective.prepare(one.rows, torch.device("cpu"))).observations["corrupted_ids"]
    for record, row in zip(shown, wanted, strict=True):
        assert record["steps"][-1]["tokens"] == stream.tokenizer.convert_ids_to_tokens(row[1:-1].tolist())


def _packed(ids: Any, tokenizer: Any) -> PackedBatch:
    """Texts of one length as rows."""
    rows = np.pad(ids, ((0, 0), (1, 1)))
    rows[:, 0], rows[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    is_special = np.zeros(rows.shape, np.bool_)
    is_special[:, [0, -1]] = True
    arrays = rows, np.zeros_like(rows), np.ones(rows.shape, np.bool_), is_special, np.arange(len(rows))
    return PackedBatch(*map(torch.from_numpy, arrays))


def test_detection_reports_what_the_issue_asks(tiny_run: Runs, text: str) -> None:
    result = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=40)
    json.dumps(result, allow_nan=False)
    assert result["rows"] == 40
    assert set(result["discriminator"]) == {"precision", "recall", "f1", "auc", "log_loss"}
    assert result["baselines"]["unigram_auc"] >= 0.5
    assert result["baselines"]["unigram_orientation"].split()[0] in ("frequent", "rare")
    assert result["generator"]["loss_bits"] == pytest.approx(result["generator"]["loss"] / np.log(2))
    low, high = result["intervals_95"]["auc"]
    assert low < result["discriminator"]["auc"] < high
    assert set(result["intervals_95"]) == {"precision", "recall", "auc", "unigram_auc", "auc_above_unigram"}
    again = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=40)
    assert again == result
    other = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=40, seed=1)
    assert other["discriminator"] != result["discriminator"]


def test_batches_do_not_change_the_masks(tiny_run: Runs, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged_tokens, "BATCH_ROWS", 1)
    one = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=20)
    monkeypatch.setattr(judged_tokens, "BATCH_ROWS", 20)
    all_at_once = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=20)
    assert one["replaced_fraction"] == all_at_once["replaced_fraction"]
    assert one["discriminator"] == pytest.approx(all_at_once["discriminator"], rel=1e-4)


def test_detection_reads_shards_and_the_settings_of_the_run(tiny_run: Runs, text: str, tmp_path: Path) -> None:
    run, shards = tmp_path / "run", tmp_path / "shards"
    shutil.copytree(tiny_run(), run)
    config = tiny_configuration(
        data={"sequence_length": 16, "segments": 1},
        corruption={"masked_fraction": 0.3},
        generator={"temperature": 0.5},
    )
    (run / "config.toml").write_text(to_toml(config))
    (run / "unigram_counts.npy").unlink()
    prepare([text], tokenizer=run / "model", output=shards)
    result = evaluate_detection(run, [str(shards)], rows=30)
    settings = {"sequence_length": 16, "segments": 1, "masked_fraction": 0.3, "temperature": 0.5}
    assert {name: result["settings"][name] for name in settings} == settings
    assert result["generator"]["masked_tokens"] == 30 * round(16 * 0.3)
    assert result["baselines"]["unigram_auc"] is None
    assert "unigram_auc" not in result["intervals_95"]


def test_a_plain_folder_needs_a_generator(tiny_run: Runs, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, generator = tiny_run() / "model", tiny_run() / "generator"
    with pytest.raises(CheckpointError, match="--generator"):
        evaluate_detection(model, [text], settings=SHORT)
    plain = evaluate_detection(model, [text], generator=generator, settings=SHORT, rows=20)
    assumed = evaluate_detection(model, [text], generator=generator, rows=20)
    assert assumed["settings"]["sequence_length"] == 24  # the published 128, but the model takes no more
    assert assumed["discriminator"] == plain["discriminator"]
    assert "is no run folder; rows are corrupted as published, 15% masked in rows of 24" in capsys.readouterr().err
    assert plain["discriminator"] == evaluate_detection(tiny_run(), [text], settings=SHORT, rows=20)["discriminator"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"settings": tiny_configuration(data={"sequence_length": 25})}, ConfigurationError, "takes at most 24 tokens"),
        ({"rows": 0}, ConfigurationError, "--rows 0"),
        ({"data": ["absent.txt"]}, DataError, "absent.txt"),
    ],
)
def test_detection_refuses_in_one_line(
    tiny_run: Runs, text: str, change: dict[str, Any], error: type[ElectrainError], message: str
) -> None:
    arguments = {"model": tiny_run(), "data": [text], "settings": SHORT} | change
    with pytest.raises(error, match=message) as caught:
        evaluate_detection(**arguments)
    assert "\n" not in str(caught.value)


def test_damaged_counts_and_other_vocabularies_are_refused(tiny_run: Runs, text: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run(), run)
    (run / "unigram_counts.npy").write_bytes(b"no array")
    with pytest.raises(CheckpointError, match=r"unigram_counts\.npy: damaged"):
        evaluate_detection(run, [text], settings=SHORT)
    np.save(run / "unigram_counts.npy", np.zeros(3, np.int64))
    with pytest.raises(CheckpointError, match="has 3 counts"):
        evaluate_detection(run, [text], settings=SHORT)
    path = run / "generator" / "tokenizer.json"
    path.write_text(path.read_text().replace('"dogs"', '"hens"'))
    with pytest.raises(TokenizerError, match="has another vocabulary"):
        evaluate_detection(run, [text], settings=SHORT)


def test_a_perfect_and_a_blind_discriminator(tiny_run: Runs, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A discriminator told the truth has precision, recall and AUC 1; one that says nothing has AUC one half."""
    module = "electrain.inference.evaluate.detection.judge_rows"

    def told(*arguments: Any, **keywords: Any) -> Any:
        judged = judge_rows(*arguments, **keywords)
        return type(judged)(**vars(judged) | {"logits": np.where(judged.is_replaced, 9.0, -9.0)})

    def blind(*arguments: Any, **keywords: Any) -> Any:
        judged = judge_rows(*arguments, **keywords)
        return type(judged)(**vars(judged) | {"logits": np.zeros_like(judged.logits)})

    monkeypatch.setattr(module, told)
    best = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=20)["discriminator"]
    assert (best["precision"], best["recall"], best["f1"], best["auc"]) == (1, 1, 1, 1)
    assert best["log_loss"] == pytest.approx(np.log1p(np.exp(-9)))
    monkeypatch.setattr(module, blind)
    worst = evaluate_detection(tiny_run(), [text], settings=SHORT, rows=20)["discriminator"]
    assert (worst["auc"], worst["log_loss"]) == (0.5, pytest.approx(np.log(2)))


PAIRS = [
    ("The cats see the dogs.", "The cats sees the dogs.", "agreement_1", "agreement", "morphology"),
    ("A cat sees dogs.", "A cat see dogs.", "agreement_1", "agreement", "morphology"),
    ("The dog is happy.", "The dog are happy.", "agreement_2", "agreement", "morphology"),
    ("Who saw the cat?", "Who the cat saw?", "islands", "island_effects", "syntax"),
    ("The Cat is sad.", "The cat is sad.", "islands", "island_effects", "syntax"),  # one to an uncased tokenizer
]


def _write_pairs(path: Path, pairs: list[tuple[str, ...]]) -> Path:
    names = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    lines = "".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_blimp_counts_pairs_and_ties(tiny_run: Runs, tmp_path: Path, backbone: str) -> None:
    data = _write_pairs(tmp_path / "pairs.jsonl.gz", PAIRS)
    result = evaluate_blimp(tiny_run(backbone), data)
    json.dumps(result, allow_nan=False)
    assert (result["pairs"], result["indistinguishable_pairs"]) == (5, 1)
    assert list(result["scorers"]) == [
        "discriminator",
        "discriminator_mean",
        "pseudo_log_likelihood",
        "pseudo_log_likelihood_mean",
        "pseudo_log_likelihood_within_word",
    ]
    detector = load_detector(tiny_run(backbone))
    sentences = tokenize_sentences(detector, [sentence for pair in PAIRS for sentence in pair[:2]])
    good, bad = one_pass_scores(detector, sentences, "discriminator")["discriminator"].reshape(-1, 2).T
    is_right = [float(good[number] > bad[number]) for number in range(4)] + [0.5]
    groups = result["scorers"]["discriminator"]
    assert groups["overall"]["accuracy"] == pytest.approx(np.mean(is_right))
    assert groups["overall"]["standard_error"] == pytest.approx(np.std(is_right) / np.sqrt(5))
    assert groups["by_set"]["agreement_1"]["accuracy"] == pytest.approx(np.mean(is_right[:2]))
    assert groups["by_phenomenon"]["agreement"]["accuracy"] == pytest.approx(np.mean(is_right[:3]))
    assert groups["by_field"]["syntax"] == groups["by_set"]["islands"]
    table = blimp_table(result)
    assert [line.split()[0] for line in table] == ["phenomenon", "agreement", "island_effects", "overall"]
    assert f"{100 * np.mean(is_right):.1f} ±" in table[-1]


def test_blimp_scores_with_what_the_folder_holds(tiny_run: Runs, tmp_path: Path) -> None:
    data = _write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    alone = evaluate_blimp(tiny_run() / "model", data)
    assert list(alone["scorers"]) == ["discriminator", "discriminator_mean"]
    pair = evaluate_blimp(tiny_run() / "model", data, generator=tiny_run() / "generator")
    assert pair["scorers"] == evaluate_blimp(tiny_run(), data)["scorers"]
    words = evaluate_blimp(tiny_run("electra", "masked-language-modelling"), data)
    assert all(name.startswith("pseudo_log_likelihood") for name in words["scorers"])
    assert len(words["scorers"]) == 3


def test_blimp_reads_a_folder_and_limits_its_sets(tiny_run: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    _write_pairs(folder / "a.jsonl", PAIRS[:3])
    _write_pairs(folder / "b.jsonl.gz", PAIRS[3:])
    assert evaluate_blimp(tiny_run() / "model", folder)["pairs"] == 5
    limited = evaluate_blimp(tiny_run() / "model", folder, limit_pairs_per_set=1)
    assert {name: group["pairs"] for name, group in limited["scorers"]["discriminator"]["by_set"].items()} == {
        "agreement_1": 1,
        "agreement_2": 1,
        "islands": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no minimal pairs"),
        (b"\n{", "pairs.jsonl:2: not valid JSON"),
        (b'{"sentence_good": "a"}', "pairs.jsonl:1: a minimal pair must have"),
        (None, "no such file"),
    ],
)
def test_blimp_refuses_in_one_line(tiny_run: Runs, tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "pairs.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        evaluate_blimp(tiny_run(), tmp_path / "pairs.jsonl")


def test_lines_are_documents_where_the_separator_says_so(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on lines scores a file of lines as text that it has never seen, unless they are documents here too."""
    lines = [f"the cat sees a {animal} ." for animal in ("dog", "cat")] * 60
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    ask = ["evaluate", "detection", "--model", tiny_run(), "--data"]
    _, (whole,), stderr = command(capsys, *ask, tmp_path / "a.txt")
    assert "a.txt: its lines are read as one document; if each line is a document, as in the shards" in stderr
    assert 'give --document-separator "\\n"' in stderr
    _, (of_lines,), stderr = command(capsys, *ask, tmp_path / "a.txt", "--document-separator", "\\n")
    assert "one document" not in stderr
    _, (expected,), _ = command(capsys, *ask, tmp_path / "a.jsonl")
    assert of_lines["discriminator"] == expected["discriminator"]
    assert of_lines["scored_tokens"] != whole["scored_tokens"]
    scored = electrain.evaluate("detection", model=tiny_run(), data=str(tmp_path / "a.txt"), document_separator="\n")
    assert scored.scores["discriminator"] == of_lines["discriminator"]


def test_text_that_the_model_cannot_read_is_said(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_run()
    (tmp_path / "a.txt").write_text("the cat sees a dog . " * 100)
    (tmp_path / "b.txt").write_text("the cat \u03c9\u03c9 \u03c8\u03c8 . " * 100)
    (tmp_path / "short.txt").write_text("the cat")
    capsys.readouterr()
    _, _, stderr = command(capsys, "evaluate", "detection", "--model", model, "--data", tmp_path / "a.txt")
    assert "[UNK]" not in stderr
    code, _, stderr = command(capsys, "evaluate", "detection", "--model", model, "--data", tmp_path / "b.txt")
    assert code == 0
    assert "warning: evaluate detection: --data: 40.0% of the tokens are [UNK]" in stderr
    assert 'most often because of "ψ", "ω"' in stderr or 'most often because of "ω", "ψ"' in stderr
    message = refuse(["evaluate", "detection", "--model", str(model), "--data", str(tmp_path / "short.txt")], capsys)
    assert "--data holds 3 tokens, fewer than a row of the model" in message
    assert "--data.sequence-length" not in message
