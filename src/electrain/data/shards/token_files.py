"""datatrove's tokenised files: `NAME.ds` (token ids), `NAME.ds.index` (document ends), `NAME.ds.metadata`.

Source: datatrove 0.10.1, pipeline/tokens/tokenizer.py: `TokenizedFile`.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
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
        name: of the `.ds` file in the shards' folder.
        sha256, index_sha256: of the `.ds` and the `.ds.index` file.
        words_sha256: of the `.ds.words` file, which is ours and not datatrove's: a byte for each token, 1 where a word
            begins. Empty: there is no such file.
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

    def finish(self, tokenizer_name: str) -> TokenFile:
        """Syncs and closes the files, and writes the metadata file. Returns the record for the manifest."""
        for file, _ in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        size = self._dtype.itemsize
        lines = [f"{tokenizer_name}|{size}", str(self.tokens), f"{self.tokens / 1e6:.3g} MT"]
        Path(f"{self._path}.metadata").write_text("\n".join(lines), "utf-8")
        hashes = {ending: sha256.hexdigest() for ending, (_, sha256) in self._files.items()}
        words = hashes.get(".words", "")
        return TokenFile(self._path.name, self.tokens, self.documents, hashes[""], hashes[".index"], words)

    def abandon(self) -> None:
        """Closes the files as they are, after an error."""
        for file, _ in self._files.values():
            with suppress(OSError):  # the disk is full, which was reported already; closing writes the buffer again
                file.close()
