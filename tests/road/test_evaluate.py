"""Evaluations through whole folders: detection on held-out text and BLiMP, with hand-made checks of their figures."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electrain.data.shards.prepare import prepare
from electrain.data.shards.rows import DataConfig, RowSource
from electrain.data.shards.shards import shards_in_memory
from electrain.data.text.document import Document
from electrain.foundation.configuration import to_toml
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError, ElectrainError, TokenizerError
from electrain.inference.evaluate.blimp import blimp_table, evaluate_blimp
from electrain.inference.evaluate.detection import evaluate_detection
from electrain.inference.evaluate.judged_tokens import judge_rows
from electrain.inference.evaluate.sentence_scores import one_pass_scores, tokenize_sentences
from electrain.inference.model import load_detector, load_generator
from electrain.models.backbones import encode
from electrain.models.discriminator import DiscriminatorConfig
from electrain.models.generators import take_positions
from electrain.models.heads import replaced_logits, word_logits
from electrain.pretrain.objectives.detection_batches import detection_micro_batch
from electrain.pretrain.objectives.masking import CorruptionConfig, mask_batch
from electrain.pretrain.objectives.replaced_token_detection import DetectionSettings, ReplacedTokenDetection
from tiny_pretraining import SPECIAL_IDS, tiny_configuration

Runs = Callable[..., Path]
TEXT = "the cat sees a dog . who saw the happy cats ? the sad dogs are unhappy , quickly ! a dog is x .\n"


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "held-out.txt"
    words = TEXT.split()
    random = np.random.default_rng(3)
    path.write_text(" ".join(random.choice(words, size=1500)))
    return str(path)


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_detection_equals_the_training_objective(tiny_run: Runs, text: str, backbone: str) -> None:
    """The same rows through the objective of pretraining, with dropout off, give the same losses."""
    result = evaluate_detection(tiny_run(backbone), [text], sequence_length=20, rows=30, batch_rows=7, seed=5)
    detector, sampler = load_detector(tiny_run(backbone)), load_generator(tiny_run(backbone), None)
    stream = shards_in_memory([Document(Path(text).read_text(), "")], Path(detector.source))
    source = RowSource(stream, DataConfig(20, 2), 5)
    masked = mask_batch(source.batch(np.arange(30)), 0.15, 5, mask_id=4)
    batch = detection_micro_batch(masked, DiscriminatorConfig(), CorruptionConfig(), 0, with_padding=False)
    with torch.no_grad():
        types, ids = batch.tensors["token_type_ids"], batch.tensors["token_ids"]
        extra = {"token_type_ids": types} if backbone == "electra" else {}
        words = sampler.model(input_ids=batch.tensors["masked_ids"], **extra).logits
        chosen = batch.tensors["is_selected"]
        logits = words.gather(1, batch.tensors["positions"][..., None].expand(-1, -1, words.shape[-1]))[chosen]
        originals = ids.gather(1, batch.tensors["positions"])[chosen]
        losses = torch.nn.functional.cross_entropy(logits, originals)
    assert result["generator"]["loss"] == pytest.approx(losses.item(), rel=1e-4)
    assert result["generator"]["accuracy"] == pytest.approx((logits.argmax(-1) == originals).float().mean().item())
    assert result["generator"]["masked_tokens"] == int(chosen.sum())
    judge: Any = _Judge(detector)
    proposer: Any = _Proposer(sampler)
    objective = ReplacedTokenDetection(judge, proposer, DetectionSettings(), special_ids=SPECIAL_IDS)
    with torch.no_grad():
        outcome = objective(**batch.tensors)
    is_scored = ~masked.packed.is_special
    replaced = outcome.observations["is_replaced"].numpy()[is_scored]
    assert result["replaced_fraction"] == pytest.approx(replaced.mean())
    assert result["scored_tokens"] == is_scored.sum()
    logits = outcome.observations["replaced_logits"].double().numpy()[is_scored]
    expected = np.where(replaced, np.logaddexp(0, -logits), np.logaddexp(0, logits)).mean()
    assert result["discriminator"]["log_loss"] == pytest.approx(expected, rel=1e-4)


class _Judge(torch.nn.Module):
    """A loaded discriminator as the objective calls its own."""

    heads, correction, energy = ("detection",), None, None

    def __init__(self, loaded: Any) -> None:
        super().__init__()
        self.loaded = loaded

    def hidden(self, ids: Any, types: Any, mask: Any, _: Any) -> Any:
        return encode(self.loaded.model.base_model, ids, types, mask)

    def detect(self, hidden: Any) -> Any:
        return replaced_logits(self.loaded.model, hidden)


class _Proposer(torch.nn.Module):
    """A loaded generator as the objective calls its own."""

    reads_masked_ids = True

    def __init__(self, loaded: Any) -> None:
        super().__init__()
        self.loaded = loaded

    def propose(self, ids: Any, types: Any, mask: Any, positions: Any, _: Any) -> Any:
        hidden = take_positions(encode(self.loaded.model.base_model, ids, types, mask), positions)
        return hidden, [word_logits(self.loaded.model, hidden)]


def test_detection_reports_what_the_issue_asks(tiny_run: Runs, text: str) -> None:
    result = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=40)
    json.dumps(result, allow_nan=False)
    assert result["rows"] == 40
    assert set(result["discriminator"]) == {"precision", "recall", "f1", "auc", "log_loss"}
    assert result["baselines"]["unigram_auc"] >= 0.5
    assert result["baselines"]["unigram_orientation"].split()[0] in ("frequent", "rare")
    assert result["generator"]["loss_bits"] == pytest.approx(result["generator"]["loss"] / np.log(2))
    low, high = result["intervals_95"]["auc"]
    assert low < result["discriminator"]["auc"] < high
    assert set(result["intervals_95"]) == {"precision", "recall", "auc", "unigram_auc", "auc_above_unigram"}
    again = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=40)
    assert again == result
    other = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=40, seed=1)
    assert other["discriminator"] != result["discriminator"]


def test_batches_do_not_change_the_masks(tiny_run: Runs, text: str) -> None:
    one = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=20, batch_rows=1)
    all_at_once = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=20, batch_rows=20)
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
    changed = evaluate_detection(run, [str(shards)], rows=30, masked_fraction=0.2)
    assert changed["settings"]["masked_fraction"] == 0.2


def test_a_plain_folder_needs_a_generator(tiny_run: Runs, text: str) -> None:
    model, generator = tiny_run() / "model", tiny_run() / "generator"
    with pytest.raises(CheckpointError, match="--generator"):
        evaluate_detection(model, [text], sequence_length=24)
    plain = evaluate_detection(model, [text], generator=generator, sequence_length=24, rows=20)
    assert (
        plain["discriminator"] == evaluate_detection(tiny_run(), [text], sequence_length=24, rows=20)["discriminator"]
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sequence_length": 128}, ConfigurationError, "takes at most 24 tokens"),
        ({"masked_fraction": 15.0}, ConfigurationError, "must be a fraction"),
        ({"rows": 0}, ConfigurationError, "rows = 0"),
        ({"data": ["absent.txt"]}, DataError, "absent.txt"),
    ],
)
def test_detection_refuses_in_one_line(
    tiny_run: Runs, text: str, change: dict[str, Any], error: type[ElectrainError], message: str
) -> None:
    arguments = {"model": tiny_run(), "data": [text], "sequence_length": 24} | change
    with pytest.raises(error, match=message) as caught:
        evaluate_detection(**arguments)
    assert "\n" not in str(caught.value)


def test_damaged_counts_and_other_vocabularies_are_refused(tiny_run: Runs, text: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run(), run)
    (run / "unigram_counts.npy").write_bytes(b"no array")
    with pytest.raises(CheckpointError, match=r"unigram_counts\.npy: damaged"):
        evaluate_detection(run, [text], sequence_length=24)
    np.save(run / "unigram_counts.npy", np.zeros(3, np.int64))
    with pytest.raises(CheckpointError, match="has 3 counts"):
        evaluate_detection(run, [text], sequence_length=24)
    path = run / "generator" / "tokenizer.json"
    path.write_text(path.read_text().replace('"dogs"', '"hens"'))
    with pytest.raises(TokenizerError, match="has another vocabulary"):
        evaluate_detection(run, [text], sequence_length=24)


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
    best = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=20)["discriminator"]
    assert (best["precision"], best["recall"], best["f1"], best["auc"]) == (1, 1, 1, 1)
    assert best["log_loss"] == pytest.approx(np.log1p(np.exp(-9)))
    monkeypatch.setattr(module, blind)
    worst = evaluate_detection(tiny_run(), [text], sequence_length=24, rows=20)["discriminator"]
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
    table = blimp_table(result).splitlines()
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
