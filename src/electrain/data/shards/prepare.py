"""Preparation: makes a folder of token shards from a corpus and a tokenizer."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from electrain.data.shards.datatrove import adopt_files, is_tokenised
from electrain.data.shards.encoding_pool import EncodingPool
from electrain.data.shards.writer import TOKENIZER_FOLDER, ShardWriter
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.corpus import DEFAULT_FORMAT, CorpusCounts, CorpusFormat, no_document, read_documents, read_raw
from electrain.data.text.text_files import RawText
from electrain.data.tokenizer.chinese_words import require_segmenter
from electrain.data.tokenizer.lost_letters import say_lost_dots
from electrain.data.tokenizer.tokenizer import (
    load_tokenizer,
    plain_backend,
    require_ids_in_a_row,
    save_tokenizer,
    tokenizer_hash,
)
from electrain.data.tokenizer.unknown import ENOUGH_TOKENS, Characters, say_unreachable, unknown_characters
from electrain.foundation.errors import ConfigurationError, ElectrainError, TokenizerError
from electrain.foundation.limits import available_cores
from electrain.foundation.lock import locked
from electrain.foundation.output_folder import (
    HASHES,
    Manifest,
    abandon_work,
    begin_anew,
    hashes_of,
    one_line_when_full,
    write_manifest,
)
from electrain.foundation.progress import Progress, counted, say
from electrain.foundation.sums import SUMS_NAME, write_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

COUNTS_NAME = "unigram_counts.npy"
_OUR_FILES = (
    *(f"corpus_*.ds{ending}" for ending in ("", ".index", ".words", ".metadata")),
    COUNTS_NAME,
    TOKENIZER_FOLDER,
)
_TOKENS_PER_FILE = 1 << 28  # half a gigabyte at two bytes a token: few files, each still quick to copy and to hash
_BATCH_CHARACTERS = 1 << 18  # what a process encodes at once; see benchmarks/preparation.py
_MANY_LINES = 1000
_FILES_NAMED = 3
MOST_PROCESSES = 1024  # far more than any machine has cores; each takes some 100 MB
_WHAT = "the corpus"


def prepare(
    sources: Sequence[str],
    tokenizer: Path,
    output: Path,
    *,
    corpus_format: CorpusFormat = DEFAULT_FORMAT,
    processes: int | None = None,
    chinese_words: bool = False,
    allow_unknown: bool = False,
) -> Manifest:
    """Tokenises `sources` into the folder `output`; the result does not depend on the number of processes.

    Args:
        sources: as in `read_documents`; or one folder of files tokenised by datatrove, which are checked and copied.
        tokenizer: a folder or a vocabulary file, as in `load_tokenizer`.
        output: a new or empty folder, or one that an interrupted preparation left, which starts over.
        corpus_format: how documents are found in the files.
        processes: number of tokenising processes; None: one for each core.
        chinese_words: store where words begin, with rjieba's boundaries for Chinese, for whole-word noise.
        allow_unknown: go on where more than a fifth of the tokens are [UNK].
    Returns: the manifest written.
    Raises: DataError, TokenizerError, RunDirectoryError: one line each.
    """
    if processes is not None and not 1 <= processes <= MOST_PROCESSES:
        raise ConfigurationError(f"--processes {processes}: must be at least 1 and at most {MOST_PROCESSES:,}")
    loaded = load_tokenizer(tokenizer)
    require_ids_in_a_row(loaded, str(tokenizer))
    if chinese_words:
        require_segmenter()
        if is_tokenised(sources):
            raise ConfigurationError("--chinese-words: files tokenised by datatrove hold no text to cut; leave it out")
    say_unreachable(loaded, f"prepare: {tokenizer}")

    def named() -> list[str]:
        if is_tokenised(sources):
            return []
        return unknown_characters_of(sources, corpus_format, loaded)

    existed = output.is_dir()
    with locked(output), one_line_when_full(output):
        begin_anew(output, "shards", _OUR_FILES)
        save_tokenizer(loaded, output / TOKENIZER_FOLDER)
        write_sums(output / TOKENIZER_FOLDER)
        writer = ShardWriter(output, loaded, _TOKENS_PER_FILE, with_words=chinese_words)
        try:
            if is_tokenised(sources):
                hashes = adopt_files(Path(sources[0]), writer, loaded)
            else:
                corpus = _HashedCorpus(sources, corpus_format, writer.counts)
                backend, processes = plain_backend(loaded).to_str(), processes or available_cores()
                _encode(corpus, writer, backend, processes, None if allow_unknown else named)
                hashes = corpus.hashes
            if not allow_unknown:
                writer.unknown_share.require_few(_WHAT, characters=named)
        except ElectrainError as error:
            # Nothing was prepared, or nothing of use: leave nothing that looks like an interrupted preparation.
            if not writer.tokens or isinstance(error, TokenizerError):
                abandon_work(output, _OUR_FILES, existed=existed)
            raise
        say_lost_dots(loaded.backend_tokenizer, writer.unigram_counts)
        manifest = _finish(output, writer, hashes | {"tokenizer": tokenizer_hash(loaded)})
        writer.unknown_share.say(f"prepare: {_WHAT}", characters=named)
        return manifest


def unknown_characters_of(
    sources: Sequence[str], corpus_format: CorpusFormat, tokenizer: "PreTrainedTokenizerFast"
) -> list[str]:
    """As `unknown_characters`, of a corpus."""
    documents = read_documents(sources, corpus_format, counts=CorpusCounts())
    return unknown_characters((document.text for document in documents), tokenizer)


def _encode(
    corpus: "_HashedCorpus", writer: ShardWriter, tokenizer_json: str, processes: int, named: Characters | None
) -> None:
    """Args: named: finds the unknown characters, where too many of them are refused; None: they are not."""
    counts, started = writer.counts, time.monotonic()
    # This process only reads, hashes and writes; cleaning and tokenizing, which take most of the time, run in the pool.
    # Results come back in the order of the batches, so the number of processes does not show in the files.
    try:
        with (
            Progress("prepare", "documents") as progress,
            closing(EncodingPool(tokenizer_json, writer.dtype, processes, with_words=writer.with_words)) as pool,
        ):
            for encoded, continues in pool.encode(_batches(corpus)):
                writer.add(encoded, continues)
                progress.update(counts.documents, _speed(writer, time.monotonic() - started))
                if writer.tokens >= ENOUGH_TOKENS and named is not None:
                    writer.unknown_share.require_few(_WHAT, characters=named)
        say(f"prepare: {counted(counts.documents, 'document')}, {_speed(writer, time.monotonic() - started)}")
    except BaseException:
        writer.abandon()
        raise
    writer.close()
    if not counts.documents:
        raise no_document(corpus.sources)


def _speed(writer: ShardWriter, seconds: float) -> str:
    megabytes, tokens, seconds = writer.counts.bytes / 1e6, writer.tokens, max(seconds, 1e-9)
    rates = f"{megabytes / seconds:,.2f} MB/s, {tokens / seconds:,.0f} tokens/s"
    return f"{megabytes:,.1f} MB of text, {counted(tokens, 'token')} ({rates})"


class _HashedCorpus:
    """The raw texts of all sources in order, and a hash of each source's text once it has been read."""

    def __init__(self, sources: Sequence[str], corpus_format: CorpusFormat, counts: CorpusCounts) -> None:
        self.sources = sources
        self.hashes: dict[str, str] = {}
        self._format, self._counts = corpus_format, counts
        self._lines = self._files_of_many_lines = 0

    def __iter__(self) -> Iterator[RawText]:
        for source in self.sources:
            text_hash = hashlib.sha256()
            for raw in read_raw([source], self._format, self._counts):
                text_hash.update(raw.text.encode("utf-8", "surrogatepass"))
                if not raw.continues:
                    text_hash.update(b"\0")  # "ab" and "a", "b" are different corpora
                self._say_many_lines(raw)
                yield raw
            self.hashes[source] = text_hash.hexdigest()

    def _say_many_lines(self, raw: RawText) -> None:
        """Says it on stderr when a .txt file of many lines was read as one document: often each line is one."""
        if self._format.document_separator or uncompressed_suffix(Path(raw.source)) != ".txt":
            return
        self._lines += raw.text.count("\n")
        if raw.continues:
            return
        lines, self._lines = self._lines, 0
        if lines >= _MANY_LINES:
            self._files_of_many_lines += 1
            if self._files_of_many_lines <= _FILES_NAMED:
                hint = 'if each line is a document, give --document-separator "\\n"'
                say(f"prepare: {raw.source}: its {lines:,} lines are read as one document; {hint}")
            elif self._files_of_many_lines == _FILES_NAMED + 1:
                say("prepare: more files of many lines are read as one document each; they are not named")


def _batches(corpus: Iterable[RawText]) -> Iterator[tuple[list[str], list[bool]]]:
    """Lists of texts of about `_BATCH_CHARACTERS` characters, with a flag for each: does the next text continue it?"""
    texts, continues, size = [], [], 0
    for raw in corpus:
        texts.append(raw.text)
        continues.append(raw.continues)
        size += len(raw.text) + 16  # an empty text costs something too
        if size >= _BATCH_CHARACTERS:
            yield texts, continues
            texts, continues, size = [], [], 0
    if texts:
        yield texts, continues


def _finish(output: Path, writer: ShardWriter, inputs: dict[str, str]) -> Manifest:
    np.save(output / COUNTS_NAME, writer.unigram_counts)
    names = [path.name for path in output.glob("*.metadata")]
    facts = {
        "tokens": writer.tokens,
        "unknown_tokens": writer.unknown_share.unknown,
        "documents": writer.counts.documents,
        "longest_document_tokens": writer.longest_document_tokens,
        "vocabulary_size": len(writer.unigram_counts),
        "dtype": {"<u2": "uint16", "<u4": "uint32"}[writer.dtype],
        "read": asdict(writer.counts),
        "files": [asdict(file) for file in writer.close()],
        HASHES: hashes_of(output, [COUNTS_NAME, f"{TOKENIZER_FOLDER}/{SUMS_NAME}", *sorted(names)]),
    }
    manifest = Manifest("shards", True, inputs, facts)
    write_manifest(output, manifest)
    say(f"prepare: {writer.counts.describe()}")
    return manifest
