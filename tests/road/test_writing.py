"""Summaries and translations through the real command line: every kind of decoder learns to write, and is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, EncoderDecoderModel

from command_line import command
from electrain.pretraining.run import pretrain
from tiny_pretraining import INVENTED_WORDS, tiny_configuration

WORDS = INVENTED_WORDS[:6]
QUICK = [
    "--training.epochs", "8", "--training.batch-rows", "12", "--training.peak-learning-rate", "3e-3",
    "--training.dropout", "0", "--training.label-smoothing", "0", "--generation.longest-output-tokens", "12",
]  # fmt: skip
TRANSLATIONS = ["Straße!", "eins", "Übel", "(vier)", "fünf,", "3.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Callable[[str], Path]:
    """`run(backbone)`: a pretrained pair whose generator is causal."""
    made: dict[str, Path] = {}

    def make(backbone: str) -> Path:
        if backbone not in made:
            folder = tmp_path_factory.mktemp(backbone) / "run"
            sections: dict[str, Any] = {"generator": {"kind": "causal"}, "encoder": {"backbone": backbone}}
            pretrain(tiny_configuration(**sections), tiny_shards, folder)
            made[backbone] = folder
        return made[backbone]

    return make


def write_pairs(path: Path, source: str, target: str, outputs: list[str], times: int = 1) -> Path:
    """Twelve times two different words, and what is written for each, one after the other; so often over."""
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b][:12]
    lines = [{source: f"{WORDS[a]} {WORDS[b]}", target: f"{outputs[a]} {outputs[b]}"} for a, b in pairs]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines * times) + "\n")
    return path


@pytest.mark.parametrize(
    ("decoder", "backbone"),
    [("fresh", "modernbert"), ("generator", "electra"), ("generator", "modernbert"), ("encoder", "electra")],
)
def test_each_decoder_learns_to_write(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], decoder: str, backbone: str
) -> None:
    """What a WordPiece vocabulary of invented words can write: the words in another order."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", "text", "summary", WORDS[::-1])
    train = write_pairs(tmp_path / "train.jsonl", "text", "summary", WORDS[::-1], times=40)
    code, [result], err = command(
        capsys, "finetune", "summarization", "--model", run(backbone), "--train", train, "--validation", pairs,
        "--output", tmp_path / "out", "--decoder", decoder, *QUICK,
    )  # fmt: skip
    assert code == 0
    assert result["scores"]["rougeL"] > 60, err
    model = EncoderDecoderModel.from_pretrained(tmp_path / "out/model")
    assert model.config.decoder.model_type == ("electra" if decoder == "encoder" else "gpt2")
    AutoTokenizer.from_pretrained(tmp_path / "out/model")
    code, [scored], _ = command(capsys, "evaluate", "summarization", "--model", tmp_path / "out", "--data", pairs)
    assert scored["scores"]["rougeL"] == pytest.approx(result["scores"]["rougeL"], abs=15)  # there in bfloat16
    assert scored["settings"]["generation"]["beams"] == 4


def test_a_vocabulary_of_its_own_writes_what_the_encoder_cannot_read(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", "en", "de", TRANSLATIONS)
    train = write_pairs(tmp_path / "train.jsonl", "en", "de", TRANSLATIONS, times=40)
    code, [result], err = command(
        capsys, "finetune", "translation", "--model", run("modernbert"), "--train", train, "--validation", pairs,
        "--output", tmp_path / "out", "--decoder.vocabulary", "own", "--decoder.vocabulary-size", "300", *QUICK,
    )  # fmt: skip
    assert code == 0
    assert result["scores"]["bleu"] > 50, err
    _, answers, _ = command(capsys, "predict", "translate", "--model", tmp_path / "out", "--input", pairs)
    expected = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert [answer["text"] for answer in answers] == [record["en"] for record in expected]
    assert sum(answer["output"] == record["de"] for answer, record in zip(answers, expected, strict=True)) >= 6
    _, [scored], _ = command(capsys, "evaluate", "translation", "--model", tmp_path / "out", "--data", pairs)
    assert "tok:13a" in scored["settings"]["signatures"]["bleu"]
    # The other way round, and with another score: columns can be given.
    code, _, err = command(capsys, "evaluate", "translation", "--model", tmp_path / "out", "--data", pairs,
                           "--label-column", "fr")  # fmt: skip
    assert code == 2
    assert 'no column "fr"' in err


def test_writing_resumes_exactly(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The vocabulary is learned again from the same targets, so that the checkpoint fits."""
    from electrain.training import sitting as module

    pairs = write_pairs(tmp_path / "pairs.jsonl", "en", "de", TRANSLATIONS)
    arguments = [
        "finetune", "translation", "--model", run("electra"), "--train", pairs, "--validation", pairs,
        "--decoder.vocabulary", "own", "--decoder.vocabulary-size", "280", "--training.epochs", "4",
        "--training.batch-rows", "4", "--generation.beams", "1",
    ]  # fmt: skip
    command(capsys, *arguments, "--output", tmp_path / "straight")

    class KilledError(BaseException):
        pass

    save = module.save_checkpoint

    def save_and_die(root: Path, step: int, *more: Any, **named: Any) -> Path:
        path = save(root, step, *more, **named)
        if step == 6:
            raise KilledError
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_checkpoint", save_and_die)
        with pytest.raises(KilledError):
            command(capsys, *arguments, "--output", tmp_path / "killed")
    code, _, _ = command(capsys, *arguments, "--output", tmp_path / "killed", "--resume")
    assert code == 0
    files = [
        "model/model.safetensors",
        "model/target_tokenizer/tokenizer.json",
        "checkpoints/step-12/model.safetensors",
    ]
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--decoder", "encoder"], "use [decoder] kind"),
        (["--decoder", "generater"], "generater"),
        (["--generation.longest-output-tokens", "9999"], "the decoder has 512 positions"),
        (["--decoder", "generator", "--decoder.vocabulary", "own"], "knows the encoder's words only"),
        (["--decoder.vocabulary-size", "99", "--decoder.vocabulary", "own"], "no room"),
        (["--data.label-column", "fr"], 'no column "fr"'),
        (["--head.kind", "reference"], "not translation"),
    ],
)
def test_mistakes_get_one_line(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", "en", "de", TRANSLATIONS)
    code, out, err = command(
        capsys, "finetune", "translation", "--model", run("modernbert"), "--train", pairs, "--validation", pairs,
        "--output", tmp_path / "out", *more,
    )  # fmt: skip
    assert code == 2
    assert not out
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("electrain ")]) == 1


def test_what_is_no_encoder_decoder_is_refused(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", "en", "de", TRANSLATIONS)
    code, _, err = command(capsys, "evaluate", "translation", "--model", run("electra"), "--data", pairs)
    assert code == 2
    assert "without a task" in err
    pairs.write_text('{"en": "bak", "de": "x"}\n{"en": "bak", "de": ""}\n')
    code, _, err = command(capsys, "finetune", "translation", "--model", run("electra"), "--train", pairs,
                           "--validation", pairs, "--output", tmp_path / "out")  # fmt: skip
    assert code == 2
    assert "pairs.jsonl:2" in err


def test_what_writes_is_trained_further(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next run starts where the first ended, with its decoder and its vocabulary."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", "en", "de", TRANSLATIONS)
    train = write_pairs(tmp_path / "train.jsonl", "en", "de", TRANSLATIONS, times=40)
    files = ["--train", train, "--validation", pairs]
    vocabulary = ["--decoder.vocabulary", "own", "--decoder.vocabulary-size", "300"]
    command(capsys, "finetune", "translation", "--model", run("electra"), *files, "--output", tmp_path / "first",
            *vocabulary, *QUICK)  # fmt: skip
    _, [first], _ = command(capsys, "evaluate", "translation", "--model", tmp_path / "first", "--data", pairs)
    scores = {}
    for weights in ("pretrained", "fresh"):
        code, _, err = command(
            capsys, "finetune", "translation", "--model", tmp_path / "first", *files, "--output", tmp_path / weights,
            "--training.epochs", "0.1", "--training.peak-learning-rate", "1e-9", "--training.weights", weights,
            "--generation.longest-output-tokens", "12", *(vocabulary if weights == "fresh" else []),
        )  # fmt: skip
        assert code == 0, err
        assert ("[decoder] is not used" in err) == (weights == "fresh")
        _, [scored], _ = command(capsys, "evaluate", "translation", "--model", tmp_path / weights, "--data", pairs)
        scores[weights] = scored["scores"]["bleu"]
    assert scores["pretrained"] == pytest.approx(first["scores"]["bleu"], abs=1e-3)
    assert scores["pretrained"] > 40
    assert scores["fresh"] < 20
    for name in ("tokenizer.json", "target_tokenizer/tokenizer.json"):
        assert (tmp_path / "pretrained/model" / name).read_bytes() == (tmp_path / "first/model" / name).read_bytes()
    for task, more, message in (
        ("translation", ["--decoder", "generator"], "has a decoder"),
        ("classification", [], "is an encoder-decoder"),
    ):
        code, _, err = command(capsys, "finetune", task, "--model", tmp_path / "first", *files, "--output",
                               tmp_path / "not", *more)  # fmt: skip
        assert code == 2
        assert message in err


@pytest.mark.parametrize("task", ["translation", "classification"])
@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_word_embeddings_learn_so_many_times_as_fast(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, backbone: str
) -> None:
    """Not at all at 0, where everything else learns."""
    if task == "translation":
        train = write_pairs(tmp_path / "train.jsonl", "en", "de", WORDS[::-1])
    else:
        train = tmp_path / "train.tsv"
        train.write_text("text\tlabel\n" + "".join(f"{word}\t{word < INVENTED_WORDS[50]}\n" for word in INVENTED_WORDS))
    for ratio in ("0", "1"):
        code, _, err = command(
            capsys, "finetune", task, "--model", run(backbone), "--train", train, "--validation", train, "--output",
            tmp_path / ratio, "--training.word-embedding-rate-ratio", ratio, "--training.epochs", "1",
        )  # fmt: skip
        assert code == 0, err
    before, *after = (
        load_file(folder / "model/model.safetensors") for folder in (run(backbone), tmp_path / "0", tmp_path / "1")
    )
    words = "tok_embeddings.weight" if backbone == "modernbert" else "word_embeddings.weight"
    (first,) = (value for name, value in before.items() if name.endswith(words))
    for weights, is_still in zip(after, (True, False), strict=True):
        (now,) = (value for name, value in weights.items() if name.endswith(words) and "decoder." not in name)
        assert torch.equal(first, now) == is_still
        old, new = ({name.partition("layer")[2]: w for name, w in some.items()} for some in (before, weights))
        layers = old.keys() & new.keys() - {""}
        assert layers
        assert not all(torch.equal(old[name], new[name]) for name in layers)
