"""The writer of a folder of shards: takes encoded batches, writes tokenised files, ends each document with [SEP]."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.encoding import EncodedBatch
from electrain.data.shards.token_files import Integers, TokenFile, TokenFileWriter, token_dtype
from electrain.data.text.corpus import CorpusCounts


class ShardWriter:
    """Appends to one stream of tokens, which it cuts into files at document ends, and counts what it writes.

    Attributes:
        dtype: type of the token ids on disk, "<u2" or "<u4".
        counts: documents, bytes and what was left out, so far.
        unigram_counts: (vocabulary_size,) int64; how often each id was written.
        tokens: number of tokens written so far.
        longest_document_tokens: length of the longest document, its [SEP] counted.
        with_words: True if the batches say where words begin.
    """

    def __init__(
        self,
        directory: Path,
        vocabulary_size: int,
        sep_id: int,
        tokens_per_file: int,
        tokenizer_name: str,
        *,
        with_words: bool = False,
    ) -> None:
        self.with_words = with_words
        self.dtype = token_dtype(vocabulary_size)
        self.counts = CorpusCounts()
        self.unigram_counts: NDArray[np.int64] = np.zeros(vocabulary_size, np.int64)
        self.tokens = 0
        self.longest_document_tokens = 0
        self._directory, self._tokens_per_file, self._tokenizer_name = directory, tokens_per_file, tokenizer_name
        self._sep = np.array([sep_id], self.dtype)
        self._open_tokens = 0  # tokens of the document whose end has not come yet; it may span batches
        self._finished: list[TokenFile] = []
        self._file: TokenFileWriter | None = None

    def add(self, encoded: EncodedBatch, continues: Sequence[bool]) -> None:
        """Appends a batch.

        Args:
            continues: for each text, whether the next one belongs to the same document.
        """
        self.counts.bytes += encoded.bytes
        self.counts.dropped_characters += encoded.dropped_characters
        self.counts.invalid_bytes += encoded.invalid_bytes
        tokens = np.frombuffer(encoded.tokens, self.dtype)
        begins = np.frombuffer(encoded.begins_word, np.bool_) if self.with_words else None
        # Collects the whole batch and writes once: a batch may hold thousands of short texts.
        parts, begin_parts, ends, place, written = [], [], [], 0, 0
        for length, goes_on in zip(np.frombuffer(encoded.lengths, "<i8").tolist(), continues, strict=True):
            parts.append(tokens[place : place + length])
            if begins is not None:
                begin_parts.append(begins[place : place + length])
            place, written = place + length, written + length
            self._open_tokens += length
            if not goes_on and self._end_document():
                parts.append(self._sep)
                begin_parts.append(np.ones(1, np.bool_))  # [SEP] counts as a word, so that no word runs across it
                written += 1
                ends.append(written)
        if written:
            self.write(np.concatenate(parts), ends, None if begins is None else np.concatenate(begin_parts))

    def write(self, tokens: Integers, ends: list[int], begins: NDArray[np.bool_] | None = None) -> None:
        """Appends ids that hold their [SEP] already.

        Args:
            ends: document ends, exclusive, counted from the first of these ids.
            begins: (tokens,) bool; True where a word begins; None: the files do not say.
        """
        self.unigram_counts += np.bincount(tokens, minlength=len(self.unigram_counts))
        self.tokens += len(tokens)
        while len(tokens):
            if self._file is None:
                self._file = TokenFileWriter(self._directory, f"corpus_{len(self._finished):05d}.ds", self.dtype)
            # A file ends at the first document end at which it is full, so that no document spans two files.
            room = self._tokens_per_file - self._file.tokens
            cut = next((end for end in ends if end >= room), len(tokens))
            self._file.write(
                tokens[:cut], [end for end in ends if end <= cut], None if begins is None else begins[:cut]
            )
            tokens, ends = tokens[cut:], [end - cut for end in ends if end > cut]
            begins = None if begins is None else begins[cut:]
            if len(tokens):
                self.close()

    def close(self) -> list[TokenFile]:
        """Finishes the file being written; returns all files so far."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                self._finished.append(file.finish(self._tokenizer_name))
            except OSError:
                file.abandon()
                raise
        return self._finished

    def _end_document(self) -> bool:
        length, self._open_tokens = self._open_tokens, 0
        if not length:  # only white space or dropped characters: a lone [SEP] would be an empty segment in a row
            self.counts.empty_documents += 1
            return False
        self.counts.documents += 1
        self.longest_document_tokens = max(self.longest_document_tokens, length + 1)
        return True
