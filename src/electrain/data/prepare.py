"""Preparation: a corpus and a tokenizer in, a folder of token shards out."""

import errno
import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from electrain.data.corpus import CorpusCounts, no_document, read_raw
from electrain.data.encoding import EncodedBatch
from electrain.data.encoding_pool import available_cores, encoding_pool
from electrain.data.progress import TextProgress, text_progress
from electrain.data.readers import RawText
from electrain.data.token_files import TokenFile, TokenFileWriter, token_dtype
from electrain.data.tokenizer import load_tokenizer, plain_backend, save_tokenizer, tokenizer_hash
from electrain.errors import RunDirectoryError
from electrain.run_directory import MANIFEST_NAME, Manifest, read_manifest, require_empty, write_manifest

COUNTS_NAME = "unigram_counts.npy"
TOKENIZER_FOLDER = "tokenizer"
TOKENS_PER_FILE = 1 << 28
_BATCH_CHARACTERS = 1 << 18
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare(
    sources: Sequence[str],
    tokenizer: Path,
    output: Path,
    *,
    text_column: str = "text",
    document_separator: str | None = None,
    strict: bool = False,
    processes: int | None = None,
    tokens_per_file: int = TOKENS_PER_FILE,
) -> Manifest:
    """Tokenises `sources` into the folder `output`; the result does not depend on the number of processes.

    Args:
        sources, text_column, document_separator, strict: see `read_documents`.
        tokenizer: a folder or a vocabulary file, see `load_tokenizer`.
        output: a new or empty folder, or one that an interrupted preparation left, which is begun anew.
        processes: that tokenise; None: one for each core.
        tokens_per_file: a new file is begun at the first document end after so many.
    Returns: the manifest written.
    Raises: DataError, TokenizerError, RunDirectoryError: one line each.
    """
    loaded = load_tokenizer(tokenizer)
    begin_output(output)
    try:
        save_tokenizer(loaded, output / TOKENIZER_FOLDER)
        writer = ShardWriter(
            output, len(loaded), int(loaded.sep_token_id), f"{TOKENIZER_FOLDER}/tokenizer.json", tokens_per_file
        )
        corpus = _HashedCorpus(sources, text_column, document_separator, strict)
        try:
            with (
                text_progress() as progress,
                encoding_pool(plain_backend(loaded).to_str(), writer.dtype, processes or available_cores()) as pool,
            ):
                for encoded, pieces in pool.encode(_batches(corpus)):
                    writer.add(encoded, pieces, corpus.counts)
                    _show(progress, writer, corpus.counts)
                _show(progress, writer, corpus.counts, last=True)
        finally:
            files = writer.close()
        if not corpus.counts.documents:
            raise no_document(sources)
        return _finish(output, writer, files, corpus, {"tokenizer": tokenizer_hash(loaded)})
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise RunDirectoryError(
            f"{output}: no space left on the disk (or file size limit) while writing shards; free some, or give "
            "another folder, and run the same command again"
        ) from error


def begin_output(output: Path) -> None:
    """Makes `output` an empty folder with an unfinished manifest.

    Raises: RunDirectoryError: it holds anything else than an interrupted preparation.
    """
    if (output / MANIFEST_NAME).is_file():
        if read_manifest(output, "shards").finished:
            raise RunDirectoryError(f"{output}: holds finished shards already; give a new folder, or remove this one")
        _remove_unfinished(output)
    elif output.is_dir() and [path.name for path in output.iterdir()] == [f".{MANIFEST_NAME}.writing"]:
        (output / f".{MANIFEST_NAME}.writing").unlink()
    require_empty(output)
    write_manifest(output, Manifest("shards", False, {}, {}))


def _remove_unfinished(output: Path) -> None:
    ours = ("corpus_*.ds", "corpus_*.ds.index", "corpus_*.ds.metadata", f"{COUNTS_NAME}", ".*.writing")
    for path in [path for pattern in ours for path in output.glob(pattern)]:
        path.unlink()
    shutil.rmtree(output / TOKENIZER_FOLDER, ignore_errors=True)
    left = [path.name for path in output.iterdir() if path.name != MANIFEST_NAME]
    if left:
        raise RunDirectoryError(f"{output}: holds an interrupted preparation and also {left[0]}; move that elsewhere")
    (output / MANIFEST_NAME).unlink()
    print(f"prepare: {output} holds an interrupted preparation; it is begun anew", file=sys.stderr)


class ShardWriter:
    """Writes encoded batches, in order, as tokenised files in which each document ends with [SEP]."""

    def __init__(
        self, directory: Path, vocabulary_size: int, sep_id: int, tokenizer_name: str, tokens_per_file: int
    ) -> None:
        self.dtype = token_dtype(vocabulary_size)
        self.unigram_counts: NDArray[np.int64] = np.zeros(vocabulary_size, np.int64)
        self.longest_document_tokens = 0
        self.tokens = 0
        self._directory, self._tokenizer_name, self._tokens_per_file = directory, tokenizer_name, tokens_per_file
        self._sep_id = sep_id
        self._open_tokens = 0  # of the document whose end was not seen yet
        self._finished: list[TokenFile] = []
        self._file: TokenFileWriter | None = None

    def add(self, encoded: EncodedBatch, pieces: Sequence[bool], counts: CorpusCounts) -> None:
        """Appends a batch. `pieces` says of each text whether the next one continues its document."""
        tokens = np.frombuffer(encoded.tokens, self.dtype)
        parts, ends, written = [], [], 0
        place = 0
        for length, continues in zip(np.frombuffer(encoded.lengths, "<i8").tolist(), pieces, strict=True):
            parts.append(tokens[place : place + length])
            place += length
            written += length
            self._open_tokens += length
            if continues:
                continue
            if not self._open_tokens:
                counts.empty_documents += 1
                continue
            parts.append(np.array([self._sep_id], self.dtype))
            written += 1
            ends.append(written)
            self.longest_document_tokens = max(self.longest_document_tokens, self._open_tokens + 1)
            self._open_tokens = 0
        counts.documents += len(ends)
        counts.bytes += encoded.bytes
        counts.dropped_characters += encoded.dropped_characters
        counts.invalid_bytes += encoded.invalid_bytes
        if written:
            self._write(np.concatenate(parts), ends)

    def close(self) -> list[TokenFile]:
        """Finishes the last file; returns all of them."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                self._finished.append(file.finish(self._tokenizer_name))
            except OSError:
                file.abandon()
                raise
        return self._finished

    def _write(self, tokens: NDArray[np.integer], ends: list[int]) -> None:
        self.unigram_counts += np.bincount(tokens, minlength=len(self.unigram_counts))
        self.tokens += len(tokens)
        if self._file is None:
            name = f"corpus_{len(self._finished):05d}.ds"
            self._file = TokenFileWriter(self._directory, name, self.dtype)
        room = self._tokens_per_file - self._file.tokens
        cut = next((end for end in ends if end >= room), None)
        if cut is None:
            self._file.write(tokens, ends)
            return
        self._file.write(tokens[:cut], [end for end in ends if end <= cut])
        self._finished.append(self._file.finish(self._tokenizer_name))
        self._file = None
        if cut < len(tokens):
            self._write_rest(tokens[cut:], [end - cut for end in ends if end > cut])

    def _write_rest(self, tokens: NDArray[np.integer], ends: list[int]) -> None:
        self.unigram_counts -= np.bincount(tokens, minlength=len(self.unigram_counts))
        self.tokens -= len(tokens)
        self._write(tokens, ends)


class _HashedCorpus:
    """The raw texts of all sources in order, with counts, and a hash of each source's text as it goes by."""

    def __init__(self, sources: Sequence[str], text_column: str, document_separator: str | None, strict: bool) -> None:
        self.counts = CorpusCounts()
        self.hashes: dict[str, str] = {}
        self._sources = sources
        self._column, self._separator, self._strict = text_column, document_separator, strict

    def __iter__(self) -> Iterator[RawText]:
        for source in self._sources:
            text_hash = hashlib.sha256()
            for raw in read_raw(
                [source],
                text_column=self._column,
                document_separator=self._separator,
                strict=self._strict,
                counts=self.counts,
            ):
                text_hash.update(raw.text.encode("utf-8", "surrogatepass"))
                if not raw.continues:
                    text_hash.update(b"\0")
                yield raw
            self.hashes[source] = text_hash.hexdigest()


def _batches(corpus: _HashedCorpus) -> Iterator[tuple[list[str], list[bool]]]:
    """Texts of about `_BATCH_CHARACTERS` together, and of each whether the next one continues it."""
    texts: list[str] = []
    continues: list[bool] = []
    size = 0
    for raw in corpus:
        texts.append(raw.text)
        continues.append(raw.continues)
        size += len(raw.text) + 16
        if size >= _BATCH_CHARACTERS:
            yield texts, continues
            texts, continues, size = [], [], 0
    if texts:
        yield texts, continues


def _finish(
    output: Path, writer: ShardWriter, files: list[TokenFile], corpus: _HashedCorpus, hashes: dict[str, str]
) -> Manifest:
    np.save(output / COUNTS_NAME, writer.unigram_counts)
    facts = {
        "tokens": writer.tokens,
        "documents": corpus.counts.documents,
        "longest_document_tokens": writer.longest_document_tokens,
        "vocabulary_size": len(writer.unigram_counts),
        "dtype": {"<u2": "uint16", "<u4": "uint32"}[writer.dtype],
        "read": asdict(corpus.counts),
        "files": [asdict(file) for file in files],
    }
    manifest = Manifest("shards", True, corpus.hashes | hashes, facts)
    write_manifest(output, manifest)
    print(f"prepare: {corpus.counts.describe()}", file=sys.stderr)
    return manifest


def _show(progress: TextProgress, writer: ShardWriter, counts: CorpusCounts, *, last: bool = False) -> None:
    progress.update(counts.documents, counts.bytes, writer.tokens, last=last)
