"""The schemes of tags: found out from the training data, converted, decoded, and scored as seqeval scores them."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import command, refuse
from electrain.data.labelled.checks import require_no_odd_spelling, scheme_of_examples
from electrain.data.labelled.examples import TaggedExample
from electrain.data.labelled.tag_schemes import (
    SCHEMES,
    Chunk,
    chunks_of_tags,
    faults,
    scheme_of_labels,
    tags_of_chunks,
)
from electrain.finetuning.configuration import ExamplesConfig
from electrain.finetuning.examples import read_all
from electrain.finetuning.tasks.metrics import tagging_scores
from electrain.foundation.errors import DataError

Runs = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
# the cat and the dog: a name of two words beside one of its kind, then one of one word.
CHUNKS = [Chunk("PER", 0, 1), Chunk("PER", 2, 4), Chunk("LOC", 6, 6)]
WRITTEN = {
    "bio": "B-PER I-PER B-PER I-PER I-PER O B-LOC",
    "iob1": "I-PER I-PER B-PER I-PER I-PER O I-LOC",
    "bioes": "B-PER E-PER B-PER I-PER E-PER O S-LOC",
    "bilou": "B-PER L-PER B-PER I-PER L-PER O U-LOC",
    "bmes": "B-PER E-PER B-PER M-PER E-PER O S-LOC",
    "bmewo": "B-PER E-PER B-PER M-PER E-PER O W-LOC",
}


def tagged(*sentences: str) -> list[TaggedExample]:
    return [TaggedExample(("w",) * len(tags.split()), tuple(tags.split()), "a.conll:1") for tags in sentences]


@pytest.mark.parametrize("tags", ["b-per i-per o", "B_PER I_PER O", "PER-B PER-I O", "B:PER O I:PER"])
def test_chunks_in_another_spelling_are_refused(tags: str) -> None:
    with pytest.raises(DataError, match=r'a.conll:1: tag ".*": the entities .* --data.tag-scheme none'):
        require_no_odd_spelling(tagged(tags))


@pytest.mark.parametrize("tags", ["B-PER O", "person-actor O", "NN-B NN-I", "b-x i-x", "DET NOUN X", "O", "A_B C_D O"])
def test_other_tags_are_left_alone(tags: str) -> None:
    if not tags.startswith("B-"):
        require_no_odd_spelling(tagged(tags))
    assert scheme_of_examples(tagged(tags)) == ("bio" if tags.startswith("B-") else "none")


@pytest.mark.parametrize("name", SCHEMES)
def test_each_scheme_is_known_written_and_read(name: str) -> None:
    tags = WRITTEN[name].split()
    assert list(tags_of_chunks(CHUNKS, 7, name)) == tags  # type: ignore[arg-type]
    assert chunks_of_tags(tags, name) == CHUNKS  # type: ignore[arg-type]
    assert not list(faults(tags, name))  # type: ignore[arg-type]
    assert scheme_of_examples(tagged(WRITTEN[name], "O O")) == name
    assert scheme_of_labels(set(tags)) == ("bio" if name == "iob1" else name)


def test_random_chunks_survive_every_conversion() -> None:
    draws = random.Random(5)
    for _ in range(200):
        chunks, place = [], 0
        while place < 12:
            place += draws.randrange(3)
            last = place + draws.randrange(3)
            chunks.append(Chunk(draws.choice("XY"), place, last))
            place = last + 1
        for name in SCHEMES:
            tags = tags_of_chunks(chunks, 20, name)
            assert chunks_of_tags(tags, name) == chunks
            assert not list(faults(tags, name))


@pytest.mark.parametrize(("name", "letters"), [("bioes", "BIES"), ("bilou", "BILU"), ("bio", "BI"), ("iob1", "BI")])
def test_broken_predictions_are_read_as_seqeval_reads_them(name: str, letters: str) -> None:
    """Strictly in the schemes with an end, and as conlleval does in the others."""
    seqeval_scheme = pytest.importorskip("seqeval.scheme")
    from seqeval.metrics.sequence_labeling import get_entities

    draws = random.Random(7)
    for _ in range(500):
        tags = [draws.choice(["O", *(f"{letter}-{kind}" for letter in letters for kind in "XY")]) for _ in range(7)]
        if name in ("bio", "iob1"):
            expected = [tuple(entity) for entity in get_entities(tags)]
        else:
            scheme = {"bioes": seqeval_scheme.IOBES, "bilou": seqeval_scheme.BILOU}[name]
            found = seqeval_scheme.Entities([tags], scheme).entities[0]
            expected = [(one.tag, one.start, one.end - 1) for one in found]
        assert chunks_of_tags(tags, name) == expected, tags  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bilou", "bmes", "bioes"])
def test_scores_are_seqevals_in_the_scheme(name: str) -> None:
    metrics, schemes = pytest.importorskip("seqeval.metrics"), pytest.importorskip("seqeval.scheme")
    truth = [WRITTEN[name].split()]
    predicted = [[*truth[0][:3], "O", *truth[0][4:]]]
    found = tagging_scores(truth, predicted, scheme=name)  # type: ignore[arg-type]
    if name == "bmes":
        assert found["f1"] == pytest.approx(100 * 4 / 5)  # two whole names of three, nothing else
        return
    scheme = {"bilou": schemes.BILOU, "bioes": schemes.IOBES}[name]
    assert found["f1"] == pytest.approx(100 * metrics.f1_score(truth, predicted, mode="strict", scheme=scheme))


def test_the_scheme_with_the_fewest_faults_is_found() -> None:
    odd = tagged("B-X I-X O B-Y", "O O B-X I-X", "O Tag")
    assert scheme_of_examples(odd) == "bio"
    assert scheme_of_examples(tagged("B-X I-X O", "I-X O", "B-X B-Y")) == "bio"  # one broken chunk
    assert scheme_of_examples(tagged("NN VB", "B-X NN")) == "none"
    assert scheme_of_examples(tagged("B-X L-X U-X O", "U-Y E-Y")) == "bilou"
    assert scheme_of_labels(["O", "B-X", "NAME"]) == "none"


def sentences(scheme: str) -> str:
    words, tags = ["the", "cat", "a", "dog", "cats", "see", "dogs"], WRITTEN[scheme].split()
    return "\n".join(map(" ".join, zip(words, tags, strict=True))) + "\n\na O\nis O\n"


def train(capsys: Capture, model: Path, file: Path, output: Path, *more: object) -> tuple[int, str]:
    code, _, err = command(capsys, "finetune", "tagging", "--model", model, "--train", file, "--validation", file,
                           "--output", output, "--training.epochs", "1", *more)  # fmt: skip
    return code, err


@pytest.mark.parametrize("scheme", ["bilou", "bmes", "iob1", "bio"])
def test_entities_of_every_scheme_choose_the_model(
    tiny_run: Runs, tmp_path: Path, capsys: Capture, scheme: str
) -> None:
    file, out = tmp_path / "a.conll", tmp_path / "out"
    file.write_text(sentences(scheme))
    code, err = train(capsys, tiny_run(), file, out)
    assert code == 0, err
    assert json.loads((out / "scores.json").read_text())["main_score"] == "f1"
    said = {"iob1": "the tags are IOB1 and are read as BIO", "bio": ""}.get(
        scheme, f"the tags are {scheme.upper()} and"
    )
    assert said in err
    assert ("the tags are" in err) == bool(said)
    kept = json.loads((out / "model/task.json").read_text())
    assert kept["tag_scheme"] == ("bio" if scheme == "iob1" else scheme)
    code, [scored], err = command(capsys, "evaluate", "tagging", "--model", out, "--data", file)
    assert code == 0, err
    assert "f1_PER" in scored["scores"]
    code, [answer, _], _ = command(capsys, "predict", "tag", "--model", out, "--input", file)
    assert "entities" in answer
    # A folder that an earlier version wrote does not name the scheme: the labels tell it.
    del kept["tag_scheme"]
    (out / "model/SHA256SUMS").unlink()
    (out / "model/task.json").write_text(json.dumps(kept))
    assert command(capsys, "predict", "tag", "--model", out, "--input", file)[1][0] == answer
    assert command(capsys, "evaluate", "tagging", "--model", out, "--data", file)[1][0]["scores"] == scored["scores"]


def test_tags_are_converted_on_request(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    file, out = tmp_path / "a.conll", tmp_path / "out"
    file.write_text(sentences("bio"))
    code, err = train(capsys, tiny_run(), file, out, "--data.train-tag-scheme", "iobes")
    assert code == 0, err
    kept = json.loads((out / "model/task.json").read_text())
    assert kept["tag_scheme"] == "bioes"
    every = ["O", *(f"{letter}-{kind}" for letter in "BEIS" for kind in ("LOC", "PER"))]
    assert kept["labels"] == every  # those that the training data lacks among them: a validation file may hold them
    # Files in another scheme are read as the model's, and that is said.
    for scheme in ("bioes", "bilou", "bio"):
        file.write_text(sentences(scheme))
        _, [scored], err = command(capsys, "evaluate", "tagging", "--model", out, "--data", file)
        said = f"a.conll: the tags are {scheme.upper()} and are read as BIOES"
        assert (said in err) == (scheme != "bioes")
        assert "f1_LOC" in scored["scores"]
    code, err = train(capsys, tiny_run(), file, tmp_path / "words", "--data.tag-scheme", "none")
    assert code == 0, err
    assert json.loads((tmp_path / "words/scores.json").read_text())["main_score"] == "accuracy"
    _, [answer, _], _ = command(capsys, "predict", "tag", "--model", tmp_path / "words", "--input", file)
    assert set(answer) == {"words", "tags", "probabilities"}


def test_one_odd_tag_is_refused_with_its_line(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.conll"
    arguments = ["finetune", "tagging", "--model", str(tiny_run()), "--train", str(file), "--validation", str(file)]
    for text, place, reason in (
        (sentences("bio") + "\nthe X-PER\n", 12, "the other tags are BIO"),
        (sentences("bio") + "\nthe NAME\n", 12, "the other tags are BIO"),
        ("Word Klasse\n" + sentences("bio"), 1, "the other tags are BIO"),
        (sentences("bilou").replace("dog I-PER", "dog M-PER"), 4, "the other tags are BILOU"),
        (sentences("bioes").replace("cats E-PER", "cats O"), 4, "it must be followed by I-PER or E-PER, not O"),
        ("Token Tag\n" + sentences("bio"), 1, "is a header"),
    ):
        file.write_text(text)
        line = refuse([*arguments, "--output", str(tmp_path / "out")], capsys)
        assert f"a.conll:{place}: " in line
        assert reason in line


def test_letters_alone_segment_words(tiny_run: Runs, tmp_path: Path, capsys: Capture) -> None:
    """Chinese word segmentation: its score is the F1 of words."""
    metrics = pytest.importorskip("seqeval.metrics")
    file, out = tmp_path / "a.conll", tmp_path / "out"
    file.write_text("the B\ncat E\na S\ndog B\nsees M\na E\n\nx S\nis B\nsad E\n")
    code, err = train(capsys, tiny_run(), file, out)
    assert code == 0, err
    assert "the tags are BMES and their entities are scored" in err
    _, [scored], _ = command(capsys, "evaluate", "tagging", "--model", out, "--data", file)
    assert set(scored["scores"]) == {"accuracy", "precision", "recall", "f1"}
    truth, predicted = [list("BESBMESB")], [list("BESBMSSB")]
    found = tagging_scores(truth, predicted, scheme="bmes")
    as_bio = [[tag.replace("M", "I") for tag in side[0]] for side in (truth, predicted)]
    scheme = pytest.importorskip("seqeval.scheme").IOBES
    assert found["f1"] == pytest.approx(100 * metrics.f1_score([as_bio[0]], [as_bio[1]], mode="strict", scheme=scheme))
    assert [tuple(chunk) for chunk in chunks_of_tags("BESBME", "bmes")] == [("", 0, 1), ("", 2, 2), ("", 3, 5)]
    assert scheme_of_examples(tagged("B I O B", "O B")) == "bio"
    assert scheme_of_examples(tagged("S V P B", "V E")) == "none"  # letters that are parts of speech
    assert scheme_of_examples(tagged("B-X I-X B", "O B-Y")) == "bio"  # a letter alone among tags with a kind
    file.write_text(sentences("bio").replace("dogs B-LOC", "dogs B"))
    arguments = ["finetune", "tagging", "--model", str(tiny_run()), "--train", str(file), "--validation", str(file)]
    assert 'a.conll:7: broken tag "B"' in refuse([*arguments, "--output", str(tmp_path / "no")], capsys)


def test_tags_without_names_are_said(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"tokens": ["Ada", "is"], "ner_tags": [1, 0]}\n{"tokens": ["It"], "ner_tags": [0]}\n')
    read_all("tagging", ExamplesConfig(), [str(file)], [str(file)], 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.jsonl: the tags are numbers, so words are scored, not entities" in line
    read_all("tagging", ExamplesConfig(tag_scheme="none"), [str(file)], [str(file)], 0)
    assert capsys.readouterr().err == ""


def test_tags_of_parts_of_words_are_refused_with_their_row(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"tokens": ["Ada"], "ner_tags": [1]}\n{"tokens": ["A", "##da"], "ner_tags": [1, -100]}\n')
    with pytest.raises(DataError, match=r'a.jsonl:2: word 2 \("##da"\): the tag -100 marks parts of words'):
        read_all("tagging", ExamplesConfig(), [str(file)], [str(file)], 0)


def test_a_scheme_that_is_named_wrongly_is_not_said_to_be_read(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.conll"
    file.write_text(sentences("bio"))
    with pytest.raises(DataError, match="it must be followed by I-PER or E-PER"):
        read_all("tagging", ExamplesConfig(tag_scheme="bioes"), [str(file)], [str(file)], 0)
    assert capsys.readouterr().err == ""


def test_kinds_of_chunks_that_look_alike_are_named(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.conll"
    file.write_text("Ada B-PER\nis O\nBo B-Per\nX I-Per\n")
    read_all("tagging", ExamplesConfig(), [str(file)], [str(file)], 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert 'a.conll: tags that look alike stay different: "PER" (1), "Per" (2)' in line


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "Ada is", "label": [[0, 3, "PER"]], "Comments": []}',
        '{"text": "Ada is", "entities": [{"label": "PER", "start_offset": 0, "end_offset": 3}]}',
        '{"text": "Ada is", "label": [{"start": 0, "end": 3, "labels": ["PER"]}]}',
        '{"text": "Ada is", "tokens": [{"text": "Ada", "start": 0, "end": 3}], "spans": []}',
        '{"data": {"text": "Ada is"}, "annotations": [{"result": [{"value": {"start": 0, "end": 3}}]}]}',
    ],
)
def test_spans_must_become_words_and_tags(tmp_path: Path, row: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(row + "\n")
    with pytest.raises(DataError, match=r'a.jsonl:1: ".*" holds spans of characters, but each word needs a tag; write'):
        read_all("tagging", ExamplesConfig(), [str(file)], [str(file)], 0)


def test_spans_beside_words_and_tags_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"words": ["Ada", "is"], "tags": ["B-PER", "O"], "spans": [[0, 3, "PER"]]}\n')
    assert read_all("tagging", ExamplesConfig(), [str(file)], [str(file)], 0).train[0].words == ("Ada", "is")


@pytest.mark.parametrize("name", ["a.tsv", "a.iob2", "a.v4_gold_conll", "eng.testa", "a.json"])
def test_another_name_of_columns_is_said_to_be_enough(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("Ada B-PER\nis O\n")
    with pytest.raises(DataError, match="unknown format; convert it to one of ") as caught:
        read_all("tagging", ExamplesConfig(), [str(file)], [str(file)], 0)
    assert ("needs only another name, ending in .conll" in str(caught.value)) == (name != "a.json")
