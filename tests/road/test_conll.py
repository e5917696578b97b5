"""Files in columns are read as they are meant, in every shape that people have; what is found out is said."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from electrain.data.labelled.columns import Columns
from electrain.data.labelled.reading import read_examples
from electrain.foundation.errors import DataError
from electrain.inference.predict.inputs import holds_words_and_tags
from labelled_files import written

Capture = pytest.CaptureFixture[str]
UNIVERSAL = """# sent_id = 1
# text = She can't.
1\tShe\tshe\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tca\tcan\tAUX\tMD\t_\t0\troot\t_\tSpaceAfter=No
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_

#newpar
1\t#\t#\tSYM\tNN\t_\t0\troot\t_\t_
2\t10 000\t10 000\tNUM\tCD\t_\t1\tnummod\t_\t_
"""
GERMEVAL = """#\thttp://a.b/1
1\tAnna\tB-PER\tO
2\tfährt\tO\tO

#\thttp://a.b/2
1\tFC\tB-ORG\tO
2\tKöln\tI-ORG\tB-LOC
"""
# The text of a file; words and tags of its first and last sentence; the columns that are kept; what is said.
SHAPES: dict[str, tuple[str, tuple[str, str], tuple[str, str], tuple[str, str], str]] = {
    "CoNLL-U": (UNIVERSAL, ("She ca n't .", "PRON AUX PART PUNCT"), ("# 10 000", "SYM NUM"), ("form", "upos"),
                "the file is CoNLL-U: the words are read from column form, the tags from upos"),
    "GermEval": (GERMEVAL, ("Anna fährt", "B-PER O"), ("FC Köln", "B-ORG I-ORG"), ("2", "3"),
                 "column 1 counts, columns 3 and 4 both hold tags of names: .* column 2, the tags from 3"),
    "GermEval without nested names": (GERMEVAL.replace("B-LOC", "O"), ("Anna fährt", "B-PER O"),
                                      ("FC Köln", "B-ORG I-ORG"), ("2", "3"), "column 2, the tags from 3"),
    "counted": ("1 Ada B-PER\n2 lives O\n\n1 She O\n", ("Ada lives", "B-PER O"), ("She", "O"), ("2", "3"),
                "column 1 counts: the words are read from column 2, the tags from 3"),
    "counted from 0": ("0 Ada B-PER\n1 lives O\n\n0 She O\n", ("Ada lives", "B-PER O"), ("She", "O"), ("2", "3"),
                       "column 1 counts"),
    "counted, with chunks": ("1 EU NNP B-NP B-ORG\n2 rejects VBZ B-VP O\n", ("EU rejects", "B-ORG O"),
                             ("EU rejects", "B-ORG O"), ("2", "5"), "column 2, the tags from 5"),
    "counted, with phrases alone": (
        "1 EU B-NP B-ORG\n2 is B-VP O\n",
        ("EU is", "B-ORG O"),
        ("EU is", "B-ORG O"),
        ("2", "4"),
        "column 2, the tags from 4",
    ),
    "counted with a mistake": (
        "1 Ada B-PER\n3 lives O\n\n" + "1 She O\n2 too O\n\n" * 10,
        ("Ada lives", "B-PER O"),
        ("She too", "O O"),
        ("2", "3"),
        "column 1 counts",
    ),
    "numbered sentences": ("1 1 EU B-ORG\n1 2 is O\n\n2 1 It O\n", ("EU is", "B-ORG O"), ("It", "O"), ("3", "4"),
                           "columns 1 and 2 count: the words are read from column 3"),
    "entity tags first": ("B-PER Ada\nO lives\n", ("Ada lives", "B-PER O"), ("Ada lives", "B-PER O"), ("2", "1"),
                          "column 1 holds the tags: the words are read from column 2, the tags from 1"),
    "parts of speech first": ("PROPN Ada\nVERB lives\n", ("Ada lives", "PROPN VERB"), ("Ada lives", "PROPN VERB"),
                              ("2", "1"), "column 1 holds the tags"),
    "unknown tags first": ("\n\n".join(f"{'no'[n % 2]} word{n}" for n in range(60)), ("word0", "n"), ("word59", "o"),
                           ("2", "1"), "column 1 holds the tags"),
    "given and predicted": ("EU B-ORG O\nis O B-ORG\n", ("EU is", "B-ORG O"), ("EU is", "B-ORG O"), ("1", "2"),
                            "columns 2 and 3 both hold tags of names"),
    "a count with a gap": ("1 Ada B-PER\n3 lives O\n\n1 She O\n2 is O\n", ("Ada lives", "B-PER O"), ("She is", "O O"),
                           ("2", "3"), "column 1 counts"),
    "a count from any number on": ("501 Ada B-PER\n501 lives O\n\n507 She O\n", ("Ada lives", "B-PER O"), ("She", "O"),
                                   ("2", "3"), "column 1 counts"),
    "tags, parts of speech, words": ("B-PER NNP Ada\nO VB lives\nO VB is\n", ("Ada lives is", "B-PER O O"),
                                     ("Ada lives is", "B-PER O O"), ("3", "1"), "words are read from column 3"),
    "confidences last": ("Ada B-PER 0.9\nlives O 0.8\n", ("Ada lives", "B-PER O"), ("Ada lives", "B-PER O"), ("1", "2"),
                         "column 2 holds tags of names, and column 3 does not: .* column 1, the tags from 2"),
    "places last": ("1\tAda\tB-PER\t0\t3\n2\tis\tO\t4\t6\n", ("Ada is", "B-PER O"), ("Ada is", "B-PER O"), ("2", "3"),
                    "column 1 counts, column 3 holds tags of names, and column 5 does not"),
    "phrases before parts of speech": ("EU B-NP NNP\nis B-VP VB\n", ("EU is", "NNP VB"), ("EU is", "NNP VB"),
                                       ("words", "tags"), "it has 3 columns: .* column 1, the tags from 3"),
    "CoNLL-2003": ("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nis VBZ B-VP O\n", ("EU is", "B-ORG O"),
                   ("EU is", "B-ORG O"), ("words", "tags"), "it has 4 columns: .* column 1, the tags from 4"),
    # What is read without a word.
    "byte order marks within": ("\ufeffEU B-ORG\n\n\ufeff-DOCSTART- O\n\n\ufeffis O\n", ("EU", "B-ORG"), ("is", "O"),
                                ("words", "tags"), ""),
    "numbers as words": ("1984 O\n1985 B-X\n\n3 O\n", ("1984 1985", "O B-X"), ("3", "O"), ("words", "tags"), ""),
    "years as words": (
        "".join(f"{year} O\n{year + 1} B-X\nand O\n\n" for year in range(1900, 1930)),
        ("1900 1901 and", "O B-X O"),
        ("1929 1930 and", "O B-X O"),
        ("words", "tags"),
        "",
    ),
    "a word #": ("#\tO\n5\tB-X\n\n#\tSYM\n6\tO\n", ("# 5", "O B-X"), ("# 6", "SYM O"), ("words", "tags"), ""),
    "comments with a tab": ("#\thttp://a.b/c\n5\tB-X\n\n#\ta comment here\n6\tO\n", ("5", "B-X"), ("6", "O"),
                            ("words", "tags"), ""),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", ["conllu", "conll", "txt"])
def test_columns_are_found_out_and_said(tmp_path: Path, shape: str, suffix: str, capsys: Capture) -> None:
    text, first, last, kept, said = SHAPES[shape]
    path = written(tmp_path / f"a.{suffix}", text)
    read = read_examples("tagging", [str(path)], Columns())
    found = [(" ".join(one.words), " ".join(one.tags)) for one in read.examples]
    assert (found[0], found[-1]) == (first, last)
    assert (read.columns.text, read.columns.label) == kept
    err = capsys.readouterr().err
    assert err.count("\n") == (1 if said else 0)
    if said:
        assert re.search(said, err)
        again = read_examples("tagging", [str(path)], read.columns)  # as the validation file is read, and a later one
        assert again.examples == read.examples
        assert capsys.readouterr().err == ""


def test_more_columns_than_training_had_are_said_where_a_model_is_scored(tmp_path: Path, capsys: Capture) -> None:
    trained = read_examples("tagging", [str(written(tmp_path / "a.conll", "EU B-ORG\nis O\n"))], Columns()).columns
    path = written(tmp_path / "b.conll", SHAPES["CoNLL-2003"][0])
    assert capsys.readouterr().err == ""
    read_examples("tagging", [str(path)], trained, of_other_files=True)
    assert f"{path}: it has 4 columns: the words are read from column 1, the tags from 4 (" in capsys.readouterr().err
    for columns in (replace(trained, label="4"), Columns("1", label="4")):
        read_examples("tagging", [str(path)], columns, of_other_files=True)
        assert capsys.readouterr().err == ""


def test_columns_are_named_by_number_or_by_name(tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path / "a.conllu", UNIVERSAL)
    for name in ("xpos", "5", "XPOS"):
        read = read_examples("tagging", [str(path)], Columns(label=name))
        assert read.examples[0].tags == ("PRP", "MD", "RB", ".")
        assert read.columns == Columns("form", label="xpos")
    path = written(tmp_path / "a.conll", GERMEVAL)
    assert read_examples("tagging", [str(path)], Columns("2", label="4")).examples[1].tags == ("O", "B-LOC")
    path = written(tmp_path / "b.conll", "x Ada\ny lives\n")
    for columns in (Columns("2"), Columns(label="1")):
        assert read_examples("tagging", [str(path)], columns).examples[0].words == ("Ada", "lives")
    assert capsys.readouterr().err == ""
    for columns, message in (
        (Columns(label="3"), 'no column "3" for --data.label-column; the columns are numbered from 1 to 2'),
        (Columns("tag"), 'no column "tag" for --data.text-column'),
        (Columns("2", label="2"), "column 2 cannot hold both the words and their tags"),
    ):
        with pytest.raises(DataError, match=message):
            read_examples("tagging", [str(path)], columns)


def test_counted_words_are_no_texts(tmp_path: Path) -> None:
    assert holds_words_and_tags(written(tmp_path / "a.txt", UNIVERSAL))
    assert holds_words_and_tags(written(tmp_path / "b.txt", GERMEVAL))
    assert not holds_words_and_tags(written(tmp_path / "c.txt", "1 apple is\n2 pears are\n3 plums go\n"))
    assert not holds_words_and_tags(written(tmp_path / "d.txt", "a\tb\tc\n1\t2\t3\n"))


def test_a_file_of_another_shape_is_predicted_by_its_own(tmp_path: Path) -> None:
    """A model trained on columns 2 and 3 asked about a plain file: column 2 would be the tags."""
    path = written(tmp_path / "a.conll", "Ada B-PER\nlives O\n")
    read = read_examples("tagging", [str(path)], Columns("2", label="3"), with_targets=False)
    assert read.examples[0].words == ("Ada", "lives")


@pytest.mark.parametrize(
    "text", ["Token Tag\nAda B-PER\nlives O\n", "ID\tTOKEN\tNER\n1\tAda\tB-PER\n2\tlives\tO\n\n1\tShe\tO\n"]
)
def test_a_header_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.conll", text)
    with pytest.raises(DataError, match=r'a.conll:1: ".*" is a header, not a word; remove this line'):
        read_examples("tagging", [str(path)], Columns())
    first = read_examples("tagging", [str(path)], Columns(), skip_broken=True).examples[0]
    assert (first.words, first.tags) == (("Ada", "lives"), ("B-PER", "O"))


@pytest.mark.parametrize("counts", [(1, 2, 3, 1, 2), (1, 1, 2, 2, 2), (7, 7, 7, 9, 9)])
def test_a_count_that_begins_anew_within_a_sentence_is_refused(tmp_path: Path, counts: tuple[int, ...]) -> None:
    rows = [f"{count} word{number} {('B-X', 'O')[number % 2]}\n" for number, count in enumerate(counts)]
    line = next(number for number in range(2, 5) if counts[number] != counts[0] + number * (counts[1] - counts[0])) + 1
    with pytest.raises(DataError, match=f"a.txt:{line}: the count in column 1 begins anew, yet no empty line"):
        read_examples("tagging", [str(written(tmp_path / "a.txt", "".join(rows)))], Columns())


def test_an_odd_tag_in_the_last_of_two_columns_of_tags_does_not_hide_it(tmp_path: Path) -> None:
    text = "EU NNP B-X B-ORG\nis VBZ O O\nin IN O o\nRome NNP B-X B-LOC\n"
    (read,) = read_examples("tagging", [str(written(tmp_path / "a.txt", text))], Columns()).examples
    assert read.tags == ("B-ORG", "O", "o", "B-LOC")  # which is refused where the scheme is checked


def test_a_row_of_conllu_without_a_tag_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conll", UNIVERSAL.replace("PART\tRB", "_\tRB"))
    with pytest.raises(DataError, match=r'a.conll:6: no tag in this row, only "_"'):
        read_examples("tagging", [str(path)], Columns())
    assert len(read_examples("tagging", [str(path)], Columns(), skip_broken=True).examples) == 1


LETTERS = [f"w{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(60)]
# The text of a file, words and tags of its first sentence, and what is said.
FURTHER: dict[str, tuple[str, tuple[str, str], str]] = {
    "documents": ("d1.txt Ada B-PER\nd1.txt is O\n\nd2.txt It O\nd2.txt is O\n", ("Ada is", "B-PER O"),
                  "column 1 holds no words: the words are read from column 2, the tags from 3"),
    "identifiers": ("T1 Ada B-PER\nT2 is O\n\nT3 It O\nT4 is O\n", ("Ada is", "B-PER O"), "column 1 holds no words"),
    "places": ("0-3 Ada B-PER\n4-6 is O\n\n8-9 It O\n10-12 is O\n", ("Ada is", "B-PER O"), "column 1 holds no words"),
    "counts with a point": ("1. Ada B-PER\n2. is O\n\n1. It O\n", ("Ada is", "B-PER O"), "column 1 holds no words"),
    "documents and counts": ("d/a 0 0 Ada B-PER\nd/a 0 1 is O\n\nd/a 0 0 It O\nd/a 0 1 is O\n", ("Ada is", "B-PER O"),
                             "columns up to 3 hold no words: the words are read from column 4, the tags from 5"),
    "lemmas last": ("\n".join(f"{word}s {'NV'[n % 2]} {word}" for n, word in enumerate(LETTERS)), ("waas", "N"),
                    "column 3 seems to hold lemmas, no tags: the words are read from column 1, the tags from 2"),
    "lemmas that are words": ("\n".join(f"{word} {'NV'[n % 2]} {word}" for n, word in enumerate(LETTERS[:10] * 9)),
                              ("waa", "N"), "column 3 seems to hold lemmas"),
    "no tags": ("\n".join(f"{word} {word}s" for word in LETTERS), ("waa", "waas"),
                "column 2 has 60 different tags in 60 rows, as if it held no tags but words"),
    "a title": ("\n".join(["Mot Classe", *(f"{word} {'NV'[n % 2]}" for n, word in enumerate(LETTERS))]),
                ("Mot", "Classe"),
                'a.conll:1: the tag of the first row, "Mot Classe", occurs nowhere else; remove the row'),
    # Nothing is said of these.
    "lemmas in the middle": ("\n".join(f"{word} {word} {'NV'[n % 2]}" for n, word in enumerate(LETTERS)), ("waa", "N"),
                             "it has 3 columns"),
    "one sentence of one word thrice": ("ha X O\nha Y O\n", ("ha ha", "O O"), "it has 3 columns"),
    "words with numbers": ("A1 X O\nA2 X O\n\nB Y O\nC X O\n", ("A1 A2", "O O"), "it has 3 columns"),
    "lemmas in a small file": ("The DT the\ndogs NNS dog\nbark VBP bark\n. SENT .\n\n" * 6, ("The dogs", "DT NNS"),
                               "column 3 seems to hold lemmas"),
    "words with a number each": ("word1 X O\nword2 X O\n", ("word1 word2", "O O"), "it has 3 columns"),
    "few rows": ("Ada B-PER\nis O\n", ("Ada is", "B-PER O"), ""),
}  # fmt: skip


@pytest.mark.parametrize("shape", FURTHER)
def test_columns_that_are_no_words_or_tags_are_found_out_and_said(tmp_path: Path, shape: str, capsys: Capture) -> None:
    text, (words, tags), said = FURTHER[shape]
    path = written(tmp_path / "a.conll", text)
    read = read_examples("tagging", [str(path)], Columns())
    count = len(words.split())
    found = read.examples[0]
    assert (" ".join(found.words[:count]), " ".join(found.tags[:count])) == (words, tags)
    err = capsys.readouterr().err
    assert err.count("\n") == (1 if said else 0)
    assert said in err


def test_a_header_that_is_repeated_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conll", "Token POS\nAda N\n\nToken POS\nis V\n")
    with pytest.raises(DataError, match=r'a.conll:1: "Token POS" is a header'):
        read_examples("tagging", [str(path)], Columns())
    assert [one.words for one in read_examples("tagging", [str(path)], Columns(), skip_broken=True).examples] == [
        ("Ada",),
        ("is",),
    ]


def test_the_columns_of_conll_2012_must_be_named(tmp_path: Path) -> None:
    rows = ["nw/a 0 0 Ada NNP (S* - - - - (PERSON) (ARG0*) (1)", "nw/a 0 1 is VBZ *) be 1 1 - * * -", ""]
    rows += ["nw/a 0 0 It PRP (S* - - - - * -", "nw/a 0 1 is VBZ *) be 1 1 - * -", ""]  # without the argument of a verb
    text = "\n".join(["#begin document (nw/a); part 000", *rows, "#end document", ""])
    path = written(tmp_path / "a.conll", text)
    with pytest.raises(DataError, match=r"a.conll: .* give --data.text-column 4 and --data.label-column 5 for parts"):
        read_examples("tagging", [str(path)], Columns())
    read = read_examples("tagging", [str(path)], Columns("4", label="5")).examples
    assert [(one.words, one.tags) for one in read] == [(("Ada", "is"), ("NNP", "VBZ")), (("It", "is"), ("PRP", "VBZ"))]


@pytest.mark.parametrize("text", ["d1 Ada\nd1 is\n\nd2 It\nd2 is\n", "T1 Ada\nT2 is\n\nT3 It\nT4 is\n"])
def test_identifiers_before_words_without_tags_are_passed_over(tmp_path: Path, text: str, capsys: Capture) -> None:
    path = written(tmp_path / "a.conll", text)
    read = read_examples("tagging", [str(path)], Columns("2", label="3"), with_targets=False).examples
    assert [one.words for one in read] == [("Ada", "is"), ("It", "is")]
    assert "column 1 holds no words: the words are read from column 2" in capsys.readouterr().err
    path = written(tmp_path / "b.conll", "1984 O\n1986 B-X\n\n3 O\n5 O\n")
    assert read_examples("tagging", [str(path)], Columns(), with_targets=False).examples[0].words == ("1984", "1986")
