"""datatrove's tokenised files: `NAME.ds` (token ids), `NAME.ds.index` (document ends), `NAME.ds.metadata`.

Source: datatrove 0.10.1, pipeline/tokens/tokenizer.py: `TokenizedFile`.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]  # token ids of any width, on disk and in memory


@dataclass(frozen=True)
class TokenFile:
    """The manifest's record of one finished file.

    Attributes:
        name: name of the `.ds` file in the shards' folder.
        tokens: number of token ids.
        documents: number of document ends.
        sha256: SHA-256 of the `.ds` file.
        index_sha256: SHA-256 of the `.ds.index` file.
        words_sha256: SHA-256 of the `.ds.words` file, which is ours and not datatrove's: a byte for each token, 1 where
            a word begins. Empty: there is no such file.
    """

    name: str
    tokens: int
    documents: int
    sha256: str
    index_sha256: str
    words_sha256: str = ""


def token_dtype(vocabulary_size: int) -> str:
    """The smaller of uint16 and uint32, little-endian, that holds every id, as datatrove chooses it."""
    return "<u2" if vocabulary_size <= 1 << 16 else "<u4"


class TokenFileWriter:
    """Writes one tokenised file. Document ends go to disk at once, so memory does not grow with the documents."""

    def __init__(self, directory: Path, name: str, dtype: str) -> None:
        self._path = directory / name
        self._dtype = np.dtype(dtype)
        self._tokens_file = open(self._path, "wb")  # noqa: SIM115
        self._index_file = open(f"{self._path}.index", "wb")  # noqa: SIM115
        self._words_file: IO[bytes] | None = None
        self._tokens_hash, self._index_hash, self._words_hash = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self.tokens = 0
        self.documents = 0

    def write(self, tokens: Integers, document_ends: Sequence[int], begins: NDArray[np.bool_] | None = None) -> None:
        """Appends token ids.

        Args:
            document_ends: exclusive, counted from the first of these ids.
            begins: (tokens,) bool; True where a word begins; give it with every call, or with none.
        """
        if begins is not None:
            if self._words_file is None:
                self._words_file = open(f"{self._path}.words", "wb")  # noqa: SIM115
            self._words_file.write(begins.tobytes())
            self._words_hash.update(begins.tobytes())
        content = tokens.astype(self._dtype, copy=False).tobytes()
        ends = (np.array(document_ends, np.uint64) + np.uint64(self.tokens)).astype("<u8").tobytes()
        self._tokens_file.write(content)
        self._index_file.write(ends)
        self._tokens_hash.update(content)
        self._index_hash.update(ends)
        self.tokens += len(tokens)
        self.documents += len(document_ends)

    def finish(self, tokenizer_name: str) -> TokenFile:
        """Syncs and closes the files, and writes the metadata file. Returns the record for the manifest."""
        for file in self._files():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        size = self._dtype.itemsize
        lines = [f"{tokenizer_name}|{size}", str(self.tokens), f"{self.tokens / 1e6:.3g} MT"]
        Path(f"{self._path}.metadata").write_text("\n".join(lines), "utf-8")
        words = self._words_hash.hexdigest() if self._words_file else ""
        hashes = self._tokens_hash.hexdigest(), self._index_hash.hexdigest(), words
        return TokenFile(self._path.name, self.tokens, self.documents, *hashes)

    def _files(self) -> list[IO[bytes]]:
        return [self._tokens_file, self._index_file, *([self._words_file] if self._words_file else [])]

    def abandon(self) -> None:
        """Closes the files as they are, after an error."""
        for file in self._files():
            try:
                file.close()
            except OSError:  # the disk is full, which was reported already; closing tries to write the buffer again
                continue
