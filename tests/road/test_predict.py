"""Detecting and filling through whole folders: offsets, order, windows, input files, and unusable folders."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from transformers import AutoModel, AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining, pipeline

from asking import asked
from command_line import command
from electrain.data.tokenizer.windows import Window, batches_by_length, places_in_original, tokenize_texts, windows_of
from electrain.finetuning.configuration import FinetuneConfig
from electrain.foundation.configuration import to_toml
from electrain.foundation.errors import CheckpointError, DataError, ElectrainError, TokenizerError
from electrain.inference.evaluate.blimp import evaluate_blimp
from electrain.inference.evaluate.detection import evaluate_detection
from electrain.inference.model import load_detector, load_generator, load_language_model
from electrain.inference.predict.pretrained import read_texts, write_json_lines
from electrain.inference.predictor import load
from electrain.pretraining.run_folder import RunFolder, open_run_folder
from tiny_pretraining import tiny_configuration

Runs = Callable[..., Path]


def test_detect_points_into_the_text_as_given(tiny_run: Runs) -> None:
    text = "  The\u00a0 \u200bÜNHAPPY\tc\u00ad\x00ats  \n saw\ufeff a dog!"
    (answer,) = asked("detect", tiny_run(), [text])
    assert answer["text"] == text
    tokens = [(each["token"], text[each["start"] : each["end"]]) for each in answer["tokens"]]
    assert tokens == [
        ("the", "The"),
        ("un", "ÜN"),
        ("##hap", "HAP"),
        ("##py", "PY"),
        ("cats", "c\u00ad\x00ats"),
        ("saw", "saw"),
        ("a", "a"),
        ("dog", "dog"),
        ("!", "!"),
    ]


def test_places_survive_control_characters_that_look_like_space() -> None:
    assert places_in_original("a\x1cb \x1c c", "ab c")[:2] == [0, 2]
    assert places_in_original("a\x1cb \x1c c", "ab c")[3] == 6


def test_texts_are_cleaned_as_training_text_is(tiny_run: Runs) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_run() / "model")
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    (tokenized,) = tokenize_texts(tokenizer, ["a C\u00adat"])
    assert tokenizer.convert_ids_to_tokens(tokenized.token_ids) == ["a", "cat"]
    assert tokenized.spans == [(0, 1), (2, 6)]


def test_batches_keep_to_their_tokens() -> None:
    windows = [window for text, tokens in enumerate([3, 9, 1, 30, 9, 2]) for window in windows_of(text, tokens, 50)]
    batches = list(batches_by_length(windows, 24))
    assert sorted(window.text for batch in batches for window in batch) == list(range(6))
    sizes = [(len(batch), max(window.end for window in batch) + 2) for batch in batches]
    assert all(rows * length <= 24 or rows == 1 for rows, length in sizes)
    assert len(batches) == 3


def test_short_texts_are_not_padded_to_the_longest_of_all() -> None:
    windows = [Window(number, 0, 1 + number % 60, 0, 1 + number % 60) for number in range(256)]
    lengths = [[window.end + 2 for window in batch] for batch in batches_by_length(windows, 8192)]
    assert sum(max(own) * len(own) for own in lengths) < 1.2 * sum(map(sum, lengths))
    assert len(lengths) < 30


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_detect_equals_one_text_at_a_time_and_keeps_the_order(tiny_run: Runs, backbone: str) -> None:
    texts = ["the cat", "", "a dog sees the cats .", "x", "   ", "who are the happy dogs ?"] * 60
    detector = load(tiny_run(backbone), batch_tokens=64)
    together = [answer.to_dict() for answer in detector.detect(iter(texts))]
    assert [answer["text"] for answer in together] == [text.strip() for text in texts]
    for text, answer in zip(texts[:6], together[:6], strict=True):
        alone = detector.detect(text).to_dict()
        if not text.strip():
            assert alone == answer == {"text": ""}
            continue
        assert [each["token"] for each in answer["tokens"]] == text.split()
        for one, other in zip(alone["tokens"], answer["tokens"], strict=True):
            assert one["probability_replaced"] == pytest.approx(other["probability_replaced"], rel=1e-4)


def test_detect_equals_hugging_face(tiny_run: Runs) -> None:
    folder = tiny_run() / "model"
    encoding = AutoTokenizer.from_pretrained(folder)("the cats see a dog", return_tensors="pt")
    with torch.no_grad():
        expected = torch.sigmoid(ElectraForPreTraining.from_pretrained(folder).eval()(**encoding).logits)[0, 1:-1]
    (answer,) = asked("detect", folder, ["the cats see a dog"])
    assert [each["probability_replaced"] for each in answer["tokens"]] == pytest.approx(expected.tolist(), rel=1e-4)


def test_long_texts_are_judged_in_windows(tiny_run: Runs) -> None:
    words = [["the", "cat", "sees", "a", "dog", "and", "x", "."][number * 5 % 8] for number in range(70)]
    (answer,) = asked("detect", tiny_run(), [" ".join(words)])
    assert len(answer["tokens"]) == 70
    window = next(each for each in windows_of(0, 70, 22) if each.start)
    (alone,) = asked("detect", tiny_run(), [" ".join(words[window.start : window.end])])
    expected = alone["tokens"][window.answers_from - window.start : window.answers_to - window.start]
    for one, other in zip(expected, answer["tokens"][window.answers_from : window.answers_to], strict=True):
        assert one["probability_replaced"] == pytest.approx(other["probability_replaced"], rel=1e-4)


@pytest.mark.parametrize("longest", [3, 4, 22, 510])
def test_windows_answer_every_token_once(longest: int) -> None:
    for tokens in [0, 1, longest - 1, longest, longest + 1, 2 * longest, 7 * longest + 3]:
        windows = windows_of(0, tokens, longest)
        answered = [token for window in windows for token in range(window.answers_from, window.answers_to)]
        assert answered == list(range(tokens))
        assert all(window.start <= window.answers_from <= window.answers_to <= window.end for window in windows)
        assert all(window.end - window.start <= longest for window in windows)


def test_no_text_is_longer_than_the_rows_of_the_run(tiny_run: Runs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run(), run)
    assert load_detector(run).longest_row == 24
    (run / "config.toml").write_text(to_toml(tiny_configuration(data={"sequence_length": 16})))
    assert load_detector(run).longest_row == 16
    assert load_generator(run, None).longest_row == 16


def test_fill_equals_hugging_face_and_says_what_filled(tiny_run: Runs) -> None:
    folder = tiny_run() / "generator"
    text = "The [MASK] saw  [MASK] dog"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoding = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = ElectraForMaskedLM.from_pretrained(folder).eval()(**encoding).logits[0]
    expected = logits[encoding["input_ids"][0] == tokenizer.mask_token_id].softmax(-1)
    expected[:, tokenizer.all_special_ids] = 0
    (answer,) = asked("fill", tiny_run(), [text], candidates=3)
    assert answer["model"] == str(folder)
    assert [text[mask["start"] : mask["end"]] for mask in answer["masks"]] == ["[MASK]", "[MASK]"]
    for mask, row in zip(answer["masks"], expected, strict=True):
        values, ids = row.topk(3)
        assert [each["token"] for each in mask["candidates"]] == tokenizer.convert_ids_to_tokens(ids.tolist())
        assert [each["probability"] for each in mask["candidates"]] == pytest.approx(values.tolist(), rel=1e-4)


def test_special_tokens_are_no_candidates(tiny_run: Runs) -> None:
    (answer,) = asked("fill", tiny_run(), ["a [MASK]"], candidates=1000)
    tokens = {each["token"] for each in answer["masks"][0]["candidates"]}
    vocabulary = set(AutoTokenizer.from_pretrained(tiny_run() / "generator").get_vocab())
    assert tokens == vocabulary - {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def test_fill_takes_the_model_of_a_language_modelling_run(tiny_run: Runs) -> None:
    run = tiny_run("modernbert", "masked-language-modelling")
    answers = asked("fill", run, ["a [MASK]", "", "x " * 60 + "[MASK] x"])
    assert answers.pop(1) == {"text": ""}
    assert [answer["model"] for answer in answers] == [str(run / "model")] * 2
    assert [len(answer["masks"]) for answer in answers] == [1, 1]
    assert answers[1]["masks"][0]["start"] == 120


def test_fill_refuses_a_text_without_a_gap(tiny_run: Runs) -> None:
    with pytest.raises(DataError, match=r"text 2 \('no gap'\): holds no \[MASK\]"):
        asked("fill", tiny_run(), ["a [MASK]", "no gap"])


def test_texts_come_from_arguments_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, records = tmp_path / "a.txt", tmp_path / "a.jsonl"
    lines.write_bytes("\ufeffone\r\n\r\nzwei\u2028drei\n".encode())
    records.write_text('{"text": "one"}\n\n{"id": 3, "text": "zwei\\ndrei"}\n')
    assert list(read_texts(["one", "two"])) == ["one", "two"]
    assert list(read_texts([], lines)) == ["one", "", "zwei\u2028drei"]
    assert list(read_texts([], records)) == ["one", "", "zwei\ndrei"]
    for path in (None, "-"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x\ny")))
        assert list(read_texts([], path)) == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"txt": "b"}\n', "a.jsonl:2: has no field"),
        (b"plain\n", "a.jsonl:1: not valid JSON"),
        (b'{"text": 3}\n', "a.jsonl:1: .text. holds 3, not a text"),
        (b'{"text": "\xe9"}\n', "a.jsonl:1: not UTF-8"),
        (None, "a.jsonl: no such file"),
    ],
)
def test_unusable_input_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_texts([], tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match="not both"):
        list(read_texts(["x"], tmp_path / "a.jsonl"))


def test_answers_are_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"text": "Öl\n"}, {"text": ""}]
    write_json_lines(records, tmp_path / "out.jsonl")
    write_json_lines(records)
    for written in ((tmp_path / "out.jsonl").read_text("utf-8"), capsys.readouterr().out):
        assert [json.loads(line) for line in written.splitlines()] == records
    with pytest.raises(DataError, match="there is no folder"):
        write_json_lines(records, tmp_path / "absent" / "out.jsonl")


def _truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _drop_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "predictions" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def _widen(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"hidden_size": 32}))


def _shrink_vocabulary(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"vocab_size": 20}))
    weights = load_file(folder / "model.safetensors")
    name = "electra.embeddings.word_embeddings.weight"
    save_file(weights | {name: weights[name][:20].clone()}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_truncate, CheckpointError, "its weights cannot be used"),
        (_pickle, CheckpointError, "a pickle, .* run `electrain convert"),
        (_drop_head, CheckpointError, "is no discriminator: its weights lack discriminator_predictions"),
        (_widen, CheckpointError, "do not have the shapes that its config.json gives"),
        (lambda folder: (folder / "config.json").write_text("{"), CheckpointError, "config.json: not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), CheckpointError, "neither model/ nor config.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), TokenizerError, "cannot be read"),
        (lambda folder: [path.unlink() for path in folder.glob("tok*")], TokenizerError, "holds no tokenizer"),
        (_shrink_vocabulary, TokenizerError, "numbers tokens up to"),
        (shutil.rmtree, CheckpointError, "no such folder"),
    ],
)
def test_an_unusable_folder_is_one_line(
    tiny_run: Runs,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    error: type[ElectrainError],
    message: str,
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tiny_run() / "model", folder)
    load_detector(folder)
    damage(folder)
    capfd.readouterr()  # what making the run said
    with pytest.raises(error, match=message) as caught:
        load_detector(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    output = capfd.readouterr()
    assert output.out == output.err == "", "transformers is to be quiet"


def test_one_network_is_not_taken_for_the_other(tiny_run: Runs) -> None:
    with pytest.raises(CheckpointError, match="is no discriminator"):
        load_detector(tiny_run() / "generator")
    with pytest.raises(CheckpointError, match="is a ElectraForPreTraining, no masked or causal"):
        load_language_model(tiny_run() / "model")
    with pytest.raises(CheckpointError, match="--generator"):
        load_generator(tiny_run() / "model", None)


def test_a_tagger_is_no_discriminator(tiny_run: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "tagger"
    shutil.copytree(tiny_run("modernbert") / "detector", folder)
    content = json.loads((folder / "config.json").read_text())
    content |= {"id2label": {"0": "NOUN", "1": "VERB"}, "label2id": {"NOUN": 0, "VERB": 1}}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="its labels are not original and replaced"):
        load_detector(folder)


def test_a_name_that_the_hub_does_not_know_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"nobody/nothing: no such folder.*HF_HUB_OFFLINE is set") as caught:
        load_detector("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_an_output_is_replaced_only_when_all_is_well(tiny_run: Runs, tmp_path: Path) -> None:
    """What stood there stays when something fails; and the input may be the output."""
    from electrain.cli.app import main

    kept = tmp_path / "kept.jsonl"
    kept.write_text("precious\n")
    with pytest.raises(SystemExit) as caught:
        main(["predict", "generate", "the cat", "--model", str(tiny_run()), "--output", str(kept)])
    assert caught.value.code == 2
    assert kept.read_text() == "precious\n"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.jsonl"]
    lines = tmp_path / "lines.txt"
    lines.write_text("the cat\na dog\n")
    with pytest.raises(SystemExit) as caught:
        main(["predict", "detect", "--model", str(tiny_run()), "--input", str(lines), "--output", str(lines)])
    assert not caught.value.code
    assert [json.loads(line)["text"] for line in lines.read_text().splitlines()] == ["the cat", "a dog"]


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_output_that_cannot_be_is_refused_at_once(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    from electrain.cli.app import main

    task = ["predict", "detect", "the cat"] if verb == "predict" else ["evaluate", "blimp", "--data", "absent"]
    with pytest.raises(SystemExit) as caught:
        main([*task, "--model", str(tiny_run()), "--output", str(tmp_path / "absent" / "x.json")])
    assert caught.value.code == 2
    assert "there is no folder" in capsys.readouterr().err


def test_only_the_networks_that_a_verb_needs_are_opened(tiny_run: Runs, tmp_path: Path) -> None:
    """No file of another network is opened at all."""
    run = tiny_run("modernbert")
    opened: list[str] = []
    is_counting = False

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if is_counting and event == "open" and str(arguments[0]).startswith(str(run)):
            opened.append(str(Path(str(arguments[0])).relative_to(run)))

    sys.addaudithook(note)  # stays until the process ends
    examples = tmp_path / "pairs.jsonl"
    pair = {"sentence_good": "the cat", "sentence_bad": "cat the", "UID": "a", "linguistics_term": "b", "field": "c"}
    examples.write_text(json.dumps(pair) + "\n")
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("the cat sees a dog . " * 50)
    for verb, networks in (
        (lambda: asked("detect", run, ["the cat"]), {"detector"}),
        (lambda: asked("fill", run, ["the [MASK]"]), {"generator"}),
        (lambda: evaluate_blimp(run, examples), {"detector", "generator"}),
        (lambda: asked("embed", run, ["the cat"]), {"model"}),
        (lambda: evaluate_detection(run, [str(held_out)], rows=4), {"detector", "generator"}),
    ):
        opened.clear()
        is_counting = True
        verb()
        is_counting = False
        # The run's is looked into for what it ran, and read. A network's own is read three times: compared with its
        # hash, looked through for absurd sizes, and used.
        assert opened.count("config.toml") == 2
        for network in networks:
            assert 1 <= opened.count(f"{network}/config.json") <= 3
        assert {Path(path).parts[0] for path in opened} - {"unigram_counts.npy"} == {"config.toml", *networks}


def test_a_run_folder_says_what_it_holds(tiny_run: Runs, tmp_path: Path) -> None:
    folder = tiny_run("modernbert")
    run = open_run_folder(folder)
    assert (run.model, run.generator) == (str(folder / "model"), str(folder / "generator"))
    assert dict(run.heads) == {"detection": str(folder / "detector")}
    assert run.trained_length == 24
    assert not run.is_baseline
    assert open_run_folder(run) is run
    baseline = open_run_folder(tiny_run("modernbert", "masked-language-modelling"))
    assert baseline.is_baseline
    assert baseline.heads == {}
    tuned = tmp_path / "tuned"
    shutil.copytree(folder / "model", tuned / "model")
    (tuned / "config.toml").write_text(to_toml(FinetuneConfig()))
    assert open_run_folder(tuned) == RunFolder(str(tuned), str(tuned / "model"))


@pytest.mark.parametrize("backbone", ["electra", "modernbert", "bert"])
def test_a_pipeline_answers_as_predict_does(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], backbone: str
) -> None:
    """Also of texts that are longer than the rows of fine-tuning, which both cut at the same token."""
    labelled, tuned = tmp_path / "labelled.tsv", tmp_path / "tuned"
    labelled.write_text("sentence\tlabel\n" + "the cat\tyes\na dog\tno\n" * 8)
    code, _, err = command(
        capsys, "finetune", "classification", "--model", tiny_run(backbone), "--train", labelled,
        "--validation", labelled, "--output", tuned, "--data.longest-tokens", 12, "--training.epochs", 2,
        "--training.precision", "float32",
    )  # fmt: skip
    assert code == 0, err
    random = np.random.default_rng(5)
    words = ["the", "a", "cat", "dog", "see", "sees", "who", "is", "happy", "sad", ",", "."]
    texts = [" ".join(random.choice(words, size=size)) for size in (3, 9, 10, 11, 15, 22, 23, 40, 90)]
    _, answers, err = command(capsys, "predict", "classify", *texts, "--model", tuned)
    assert "6 of 9 texts are longer than 12 tokens" in err
    many = tmp_path / "many.txt"
    many.write_text("\n".join(texts * 40))
    for verb, model in (("classify", tuned), ("embed", tuned / "model")):
        _, answers_to_many, err = command(capsys, "predict", verb, "--input", many, "--model", model)
        assert len(answers_to_many) == 360
        assert err.count("texts are longer") == 1, "one line, however many batches there are"
    assert "240 of 360 texts" in err
    classify = pipeline("text-classification", model=str(tuned / "model"))
    for answer, theirs in zip(answers, classify(texts, truncation=True), strict=True):
        assert answer["label"] == theirs["label"]
        assert max(answer["probabilities"].values()) == pytest.approx(theirs["score"], abs=1e-5)


@pytest.mark.parametrize("backbone", ["electra", "modernbert", "bert"])
def test_embeddings_are_means_over_all_real_tokens(tiny_run: Runs, backbone: str) -> None:
    """As the mean pooling of sentence-transformers: [CLS] and [SEP] count, padding does not, in a batch too."""
    texts = ["the cat", "a dog sees the happy cats .", "x", "cat " * 60]
    folder = tiny_run(backbone) / "model"
    network, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, answer in zip(texts, asked("embed", tiny_run(backbone), texts), strict=True):
        inputs = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            states = network(**inputs).last_hidden_state[0]
        assert answer["embedding"] == pytest.approx(states.mean(0).tolist(), abs=1e-5)
