"""The verbs that prepare text for pretraining: `tokenizer` and `prepare`."""

from pathlib import Path
from typing import Literal

from electrain.cli.options import Number, Whole, print_json
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.output_folder import HASHES
from electrain.foundation.progress import say


def tokenizer(
    corpus: list[str],
    /,
    *,
    output: Path,
    vocab_size: Whole = 30522,
    kind: Literal["wordpiece", "characters", "k-mers"] = "wordpiece",
    k: Whole | None = None,
    cased: bool = False,
    keep_accents: bool = False,
    language: Literal["tr", "az"] | None = None,
    keep_joiners: bool = False,
    text_column: str = "text",
    document_separator: str | None = None,
    strict: bool = False,
    character_coverage: Number = 0.9999,
    allow_unknown: bool = False,
) -> None:
    """Train a tokenizer on a corpus.

    Args:
        corpus: Files, folders, globs, hub:NAME[/CONFIG][:SPLIT] data sets, or builtin:documentation.
        output: Folder to create for the tokenizer.
        vocab_size: Largest number of tokens in the vocabulary. The default is the published size.
        kind: What texts are cut into. wordpiece is for languages. characters and k-mers are for sequences without
            spaces, such as proteins, genomes and SMILES: they leave white space out and keep capital letters. k-mers do
            not overlap, because the neighbours of an overlapping one give it away when it is masked.
        k: Number of characters in a k-mer, with --kind k-mers only. By default 6.
        cased: Keep capital letters and accents. By default, text is lower-cased and accents are removed.
        keep_accents: Lower-case the text, but keep accents: schön and schon stay two words.
        language: Lower-case as this language does, and keep accents. By default, as most languages do. Turkish
            (tr) and Azerbaijani (az) have I for a dotless and İ for a dotted i.
        keep_joiners: Keep the zero-width non-joiner and joiner (U+200C, U+200D), which Persian words and Indian letters
            need, and which make one emoji of several. Every verb that is given the tokenizer keeps them too.
        text_column: Column that holds the text in tables and JSON lines.
        document_separator: Text between the documents of a .txt file, for example "\\n" for one document per line. By
            default, each .txt file is one document.
        strict: Refuse all invalid UTF-8. By default, up to one document in a hundred may hold some; the bytes are left
            out and counted.
        character_coverage: Fraction of the characters in the corpus that the alphabet covers, above 0 and at most 1.
            The rarest characters become [UNK].
        allow_unknown: Go on where more than a fifth of the tokens are [UNK], from which a model learns nothing.
    """
    from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
    from electrain.data.tokenizer.letters import Letters
    from electrain.data.tokenizer.training import DEFAULT_K, TokenizerKind, train_tokenizer

    if k is not None and kind != "k-mers":
        raise ConfigurationError(f"--k {k}: is read only with --kind k-mers; give both")
    what = TokenizerKind(kind, DEFAULT_K if k is None else k, Letters(cased, keep_accents, language, keep_joiners))
    counts = CorpusCounts()
    corpus_format = CorpusFormat(text_column, document_separator, strict, keep_joiners)
    documents = read_documents(corpus, corpus_format, counts=counts)
    if not 0 < character_coverage <= 1:
        raise ConfigurationError(f"--character-coverage {character_coverage}: must be above 0 and at most 1")
    manifest = train_tokenizer(
        documents,
        output,
        vocab_size,
        cased,
        character_coverage=character_coverage,
        kind=what,
        allow_unknown=allow_unknown,
    )
    say(counts.describe())
    facts = {name: fact for name, fact in manifest.facts.items() if name != HASHES}
    print_json({"output": str(output), **facts})


def prepare(
    corpus: list[str],
    /,
    *,
    tokenizer: Path,
    output: Path,
    text_column: str = "text",
    document_separator: str | None = None,
    strict: bool = False,
    processes: Whole | None = None,
    chinese_words: bool = False,
    allow_unknown: bool = False,
) -> None:
    """Tokenize a corpus and store it as token shards.

    Args:
        corpus: Files, folders, globs, hub:NAME[/CONFIG][:SPLIT] data sets, or builtin:documentation.
        tokenizer: Folder or hub id of a tokenizer, or a vocab.txt file.
        output: Folder to create for the shards. A folder that an interrupted preparation left is started over.
        text_column: Column that holds the text in tables and JSON lines.
        document_separator: Text between the documents of a .txt file, for example "\\n" for one document per line. By
            default, each .txt file is one document.
        strict: Refuse all invalid UTF-8. By default, up to one document in a hundred may hold some; the bytes are left
            out and counted.
        processes: Number of processes that tokenize. By default, one for each core.
        chinese_words: Also store where Chinese words begin, so that masking can select whole words. Needs rjieba (pip
            install 'electrain[chinese]').
        allow_unknown: Go on where more than a fifth of the tokens are [UNK], from which a model learns nothing.
    """
    from electrain.data.shards.prepare import prepare as prepare_shards
    from electrain.data.text.corpus import CorpusFormat

    manifest = prepare_shards(
        corpus,
        tokenizer,
        output,
        corpus_format=CorpusFormat(text_column, document_separator, strict),
        processes=processes,
        chinese_words=chinese_words,
        allow_unknown=allow_unknown,
    )
    facts = {name: fact for name, fact in manifest.facts.items() if name not in ("files", HASHES)}
    print_json({"output": str(output), **facts})
