"""The writer of a folder of shards: takes encoded batches, ends each document with [SEP], writes datatrove's files.

These are `NAME.ds` (token ids), `NAME.ds.index` (document ends) and `NAME.ds.metadata`.
Source: datatrove 0.10.1, pipeline/tokens/tokenizer.py: `TokenizedFile`.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.encoding import EncodedBatch
from electrain.data.text.corpus import CorpusCounts
from electrain.data.tokenizer.unknown import UnknownShare, unknown_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FOLDER = "tokenizer"
Integers = NDArray[np.integer[Any]]  # token ids of any width, on disk and in memory


@dataclass(frozen=True)
class TokenFile:
    """The manifest's record of one finished file.

    The `.ds.words` file is ours and not datatrove's: a byte for each token, 1 where a word begins.
    """

    name: str  # of the `.ds` file in the shards' folder
    tokens: int
    documents: int
    sha256: str
    index_sha256: str
    words_sha256: str = ""  # empty: there is no such file


class TokenFileWriter:
    """Writes one tokenised file. Document ends go to disk at once, so memory does not grow with the documents."""

    def __init__(self, directory: Path, name: str, dtype: str) -> None:
        self._path = directory / name
        self._dtype = np.dtype(dtype)
        self._files: dict[str, tuple[IO[bytes], Any]] = {}  # each file and its hash, by the ending of its name
        self.tokens = 0
        self.documents = 0

    def write(self, tokens: Integers, document_ends: Sequence[int], begins: NDArray[np.bool_] | None = None) -> None:
        """Appends token ids.

        Args:
            document_ends: exclusive, counted from the first of these ids.
            begins: (tokens,) bool; True where a word begins; give it with every call, or with none.
        """
        ends = (np.array(document_ends, np.uint64) + np.uint64(self.tokens)).astype("<u8")
        contents = {"": tokens.astype(self._dtype, copy=False), ".index": ends}
        for ending, content in (contents if begins is None else contents | {".words": begins}).items():
            if ending not in self._files:
                self._files[ending] = open(f"{self._path}{ending}", "wb"), hashlib.sha256()  # noqa: SIM115
            file, sha256 = self._files[ending]
            file.write(content.tobytes())
            sha256.update(content.tobytes())
        self.tokens += len(tokens)
        self.documents += len(document_ends)

    def finish(self) -> TokenFile:
        """Syncs and closes the files, and writes the metadata file. Returns the record for the manifest."""
        for file, _ in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        size = self._dtype.itemsize
        lines = [f"{TOKENIZER_FOLDER}/tokenizer.json|{size}", str(self.tokens), f"{self.tokens / 1e6:.3g} MT"]
        Path(f"{self._path}.metadata").write_text("\n".join(lines), "utf-8", newline="\n")
        hashes = {ending: sha256.hexdigest() for ending, (_, sha256) in self._files.items()}
        words = hashes.get(".words", "")
        return TokenFile(self._path.name, self.tokens, self.documents, hashes[""], hashes[".index"], words)

    def abandon(self) -> None:
        """Closes the files as they are, after an error."""
        for file, _ in self._files.values():
            with suppress(OSError):  # the disk is full, which was reported already; closing writes the buffer again
                file.close()


class ShardWriter:
    """Appends to one stream of tokens, which it cuts into files at document ends, and counts what it writes.

    Attributes:
        counts: documents, bytes and what was left out, so far.
        unigram_counts: (vocabulary_size,) int64; how often each id was written.
        longest_document_tokens: length of the longest document, its [SEP] counted.
        with_words: True if the batches say where words begin.
    """

    def __init__(
        self, directory: Path, tokenizer: "PreTrainedTokenizerFast", tokens_per_file: int, *, with_words: bool = False
    ) -> None:
        self.with_words = with_words
        self.dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"  # the smaller that holds every id, as in datatrove
        self.counts = CorpusCounts()
        self.unigram_counts: NDArray[np.int64] = np.zeros(len(tokenizer), np.int64)
        self.tokens = 0
        self.longest_document_tokens = 0
        self._directory, self._tokens_per_file = directory, tokens_per_file
        self._unknown = unknown_id(tokenizer)
        self._sep = np.array([tokenizer.sep_token_id], self.dtype)
        self._open_tokens = 0  # tokens of the document whose end has not come yet; it may span batches
        self._finished: list[TokenFile] = []
        self._file: TokenFileWriter | None = None

    @property
    def unknown_share(self) -> UnknownShare:
        """How much of the text so far became [UNK]."""
        unknown = 0 if self._unknown is None else int(self.unigram_counts[self._unknown])
        return UnknownShare(unknown, self.tokens - self.counts.documents)  # the [SEP] of each document is no text

    def add(self, encoded: EncodedBatch, continues: Sequence[bool]) -> None:
        """Appends a batch.

        Args: continues: for each text, whether the next one belongs to the same document.
        """
        self.counts.bytes += encoded.bytes
        self.counts.drop(encoded.dropped)
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
            if goes_on:
                continue
            document, self._open_tokens = self._open_tokens, 0
            if not document:  # only white space or dropped characters: a lone [SEP] would be an empty segment in a row
                self.counts.empty_documents += 1
            else:
                self.counts.documents += 1
                self.longest_document_tokens = max(self.longest_document_tokens, document + 1)
                parts.append(self._sep)
                begin_parts.append(np.ones(1, np.bool_))  # [SEP] counts as a word, so that no word runs across it
                written += 1
                ends.append(written)
        if written:
            self.write(np.concatenate(parts), ends, None if begins is None else np.concatenate(begin_parts))

    def write(self, tokens: Integers, ends: list[int], begins: NDArray[np.bool_] | None = None) -> None:
        """Appends ids that hold their [SEP] already; arguments as in `TokenFileWriter.write`."""
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
                self._finished.append(file.finish())
            except OSError:
                file.abandon()
                raise
        return self._finished

    def abandon(self) -> None:
        """Closes the file being written as it is, after an error; its index may be missing."""
        if self._file is not None:
            self._file.abandon()
            self._file = None
