"""Token shards as pretraining reads them: one long stream of token ids in which each document ends with [SEP]."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from electrain.data.shards.encoding import Encoder, encode_texts
from electrain.data.shards.prepare import COUNTS_NAME
from electrain.data.shards.writer import TOKENIZER_FOLDER, Integers, TokenFile
from electrain.data.text.corpus import Document
from electrain.data.tokenizer.tokenizer import load_tokenizer, plain_backend, special_ids_of, tokenizer_hash
from electrain.foundation.errors import DataError, RunDirectoryError, TokenizerError, first_line
from electrain.foundation.json_reading import as_kind
from electrain.foundation.output_folder import MANIFEST_NAME, Manifest, file_hash, read_manifest
from electrain.foundation.sums import require_as_written

# Tokens that are copied to a device at once, so that no second copy of the stream lies in memory.
_COPIED_TOKENS = 1 << 24
MOST_TOKENS = 1 << 48  # more than all text that was ever collected


class TokenReader(Protocol):
    """Reads tokens of a stream where the places are: the CPU, or the device that has a copy of it."""

    def __call__(self, places: Tensor, *, with_words: bool) -> tuple[Tensor, Tensor | None]:
        """The tokens at these places of the stream.

        Args:
            places: (rows, count) int64; ascending in each row.
        Returns: (rows, count) int64 ids, and (rows, count) bool, True where a word begins; None without `with_words`.
        """


class Shards:
    """A stream of token ids, on disk or in memory. Reading is safe from several threads at once.

    Attributes:
        token_count: length of the stream in tokens.
        unigram_counts: (vocabulary_size,) int64; how often each id occurs in the stream.
        tokenizer, tokenizer_directory, tokenizer_hash, special_ids: of the tokenizer that made the ids.
        has_words: True if `read_begins` can tell where words begin.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer_directory: Path,
        parts: Sequence[Integers],
        ends: Sequence[Integers],
        unigram_counts: NDArray[np.int64],
        begins: Sequence[Integers] = (),
    ) -> None:
        """
        Args:
            parts: the token ids of each file.
            ends: the document ends of each file, counted from its start.
            begins: for each token of each file, whether a word begins there; empty: the files do not say.
        """
        self.tokenizer = tokenizer = load_tokenizer(tokenizer_directory)
        self.manifest = manifest
        self.tokenizer_directory = tokenizer_directory
        self.tokenizer_hash = tokenizer_hash(tokenizer)
        self.vocabulary_size = len(tokenizer)
        self.special_ids = special_ids_of(tokenizer)
        self.unigram_counts = unigram_counts
        self._part_ends = ends
        # As plain arrays, whose slices cost less than those of a memory map; the files stay mapped.
        self._parts, self._begins = [np.asarray(part) for part in parts], [np.asarray(part) for part in begins]
        self.has_words = len(begins) > 0
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.token_count = int(self._starts[-1])

    @cached_property
    def document_ends(self) -> NDArray[np.int64]:
        """(documents,) int64; where each document ends in the stream, exclusive, in order."""
        if len(self._part_ends) == 1:  # the usual case: the file itself stays mapped, without a copy in memory
            return self._part_ends[0].view(np.int64)
        moved = [ends.astype(np.int64) + start for ends, start in zip(self._part_ends, self._starts, strict=False)]
        return np.concatenate(moved) if moved else np.zeros(0, np.int64)

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """(count,) int64: the ids from `start` on. Raises: IndexError: some of them lie outside the stream."""
        return self._read(self._parts, start, count)

    def read_begins(self, start: int, count: int) -> NDArray[np.bool_]:
        """(count,) bool: whether a word begins with each of these ids, as in `read`; only where `has_words`."""
        return self._read(self._begins, start, count).astype(np.bool_)

    def take(self, places: Tensor, *, with_words: bool) -> tuple[Tensor, Tensor | None]:
        """Tokens on the CPU; see `TokenReader`. Nothing else is read from the disk."""
        ids = torch.from_numpy(self._take(self._parts, places.numpy()).astype(np.int64))
        return ids, torch.from_numpy(self._take(self._begins, places.numpy()) != 0) if with_words else None

    def copied_to(self, device: torch.device, *, with_words: bool) -> TokenReader:
        """Copies the stream to a device, in as few bytes as on the disk. Returns what reads it there.

        Args: with_words: copy where words begin, too; only where `has_words`.
        """
        ids = _copied(self._parts, device)
        begins = _copied(self._begins, device) if with_words else None
        # PyTorch indexes signed numbers on every device; clearing the copies of the sign makes them unsigned again.
        mask = -1 if ids.dtype == torch.int64 else (1 << 8 * ids.itemsize) - 1

        def take(places: Tensor, *, with_words: bool) -> tuple[Tensor, Tensor | None]:
            known = begins[places] != 0 if with_words and begins is not None else None
            return ids[places].to(torch.int64).bitwise_and_(mask), known

        return take

    def copied_bytes(self, *, with_words: bool) -> int:
        """Memory that `copied_to` takes on the device."""
        parts = [*self._parts, *(self._begins if with_words else ())]
        return sum(part.nbytes for part in parts)

    def _take(self, parts: Sequence[Integers], places: NDArray[np.int64]) -> Integers:
        if len(parts) == 1:  # the usual case
            return parts[0][places]
        first, last = (np.searchsorted(self._starts, places[:, end], side="right") - 1 for end in (0, -1))
        result = np.empty(places.shape, parts[0].dtype)
        for part in np.unique(first).tolist():
            is_here = (first == part) & (last == part)
            result[is_here] = parts[part][places[is_here] - self._starts[part]]
        # The tokens of a row that spans files are few, and looked up one by one.
        spanning = places[first != last]
        owners = np.searchsorted(self._starts, spanning, side="right") - 1
        found = np.empty(spanning.shape, result.dtype)
        for part in np.unique(owners).tolist():
            is_here = owners == part
            found[is_here] = parts[part][spanning[is_here] - self._starts[part]]
        result[first != last] = found
        return result

    def _read(self, parts: Sequence[Integers], start: int, count: int) -> NDArray[np.int64]:
        if start < 0 or count < 0 or start + count > self.token_count:
            raise IndexError(f"tokens {start} to {start + count} of a stream of {self.token_count}")
        # A row may span two files. Only its own tokens are read from the disk, whatever the size of the files.
        result = np.empty(count, np.int64)
        filled = 0
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while filled < count:
            offset = start + filled - int(self._starts[part])
            ids = parts[part][offset : offset + count - filled]
            result[filled : filled + len(ids)] = ids
            filled += len(ids)
            part += 1
        return result


def _copied(parts: Sequence[Integers], device: torch.device) -> Tensor:
    """(tokens,) the numbers of all parts on a device, as signed integers of the same size."""
    size = parts[0].dtype.itemsize
    dtype = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    result = torch.empty(sum(len(part) for part in parts), dtype=dtype, device=device)
    filled = 0
    for part in parts:
        for start in range(0, len(part), _COPIED_TOKENS):
            some = part[start : start + _COPIED_TOKENS]
            result[filled : filled + len(some)] = torch.from_numpy(np.array(some).view(f"<i{size}")).to(device)
            filled += len(some)
    return result


@dataclass(frozen=True)
class ShardFacts:
    """The facts in the manifest of shards that reading them needs."""

    tokens: int
    vocabulary_size: int
    dtype: Literal["uint16", "uint32"]
    files: list[TokenFile]


def facts_of(manifest: Manifest, directory: Path) -> ShardFacts:
    """The facts of finished shards. Raises: DataError: they are not of the form that `prepare` writes."""
    place, way_out = str(directory / MANIFEST_NAME), "copy or prepare the shards again"
    known = {field.name for field in dataclasses.fields(ShardFacts)}
    needed = {name: value for name, value in manifest.facts.items() if name in known}
    facts = as_kind(needed, ShardFacts, place, way_out=way_out)
    if sum(file.tokens for file in facts.files) != facts.tokens:
        raise DataError(f"{place}: damaged (its files do not have the tokens that it counts); {way_out}")
    return facts


def open_shards(directory: Path, *, verify: bool = True) -> Shards:
    """Opens a folder that `prepare` made. Token ids stay on disk (memory-mapped).

    Args: verify: compare not only the sizes of the files but also their SHA-256 with the manifest.
    Raises: RunDirectoryError: not a finished folder of shards. DataError: a file is damaged. TokenizerError: the
        folder's tokenizer is not the one that made the shards.
    """
    manifest = read_manifest(directory, "shards")
    if not manifest.finished:
        raise RunDirectoryError(f"{directory}: the preparation was interrupted; run `electrain prepare` again")
    facts = facts_of(manifest, directory)
    dtype = np.dtype(facts.dtype).newbyteorder("<")
    counts = _read_counts(directory, facts)
    parts, ends, begins = [], [], []
    for file in facts.files:
        path = directory / file.name
        parts.append(_open_file(path, dtype, file.tokens, file.sha256 if verify else None))
        index = Path(f"{path}.index")
        ends.append(_open_file(index, np.dtype("<u8"), file.documents, file.index_sha256 if verify else None))
        if file.words_sha256:
            words = Path(f"{path}.words")
            begins.append(_open_file(words, np.dtype("u1"), file.tokens, file.words_sha256 if verify else None))
    shards = Shards(manifest, directory / TOKENIZER_FOLDER, parts, ends, counts, begins)
    if shards.tokenizer_hash != manifest.inputs.get("tokenizer"):
        raise TokenizerError(
            f"{shards.tokenizer_directory}: not the tokenizer that the shards were made with; prepare them again"
        )
    return shards


def shards_in_memory(documents: Iterable[Document], tokenizer_directory: Path) -> Shards:
    """The stream of a few documents, made in memory.

    Raises: DataError: no document. TokenizerError: see `load_tokenizer`.
    """
    tokenizer = load_tokenizer(tokenizer_directory)
    encoder = Encoder(plain_backend(tokenizer).to_str())
    parts, ends, length = [], [], 0
    for document in documents:
        # The same encoder and the same [SEP] rule as `prepare`, so that judging a text in memory and judging its shards
        # give the same figures.
        tokens = np.frombuffer(encode_texts(encoder, [document.text], "<u4").tokens, "<u4").astype(np.int64)
        if not document.continues:
            tokens = np.append(tokens, tokenizer.sep_token_id)
        parts.append(tokens)
        length += len(tokens)
        if not document.continues:
            ends.append(length)
    if not ends:
        raise DataError("no document to make a stream of tokens from; give some text")
    stream = np.concatenate(parts)
    counts = np.bincount(stream, minlength=len(tokenizer)).astype(np.int64)
    facts = {"tokens": length, "documents": len(ends), "vocabulary_size": len(tokenizer)}
    manifest = Manifest("shards", True, {"tokenizer": tokenizer_hash(tokenizer)}, facts)
    return Shards(manifest, tokenizer_directory, [stream], [np.array(ends, np.int64)], counts)


def _open_file(path: Path, dtype: np.dtype[np.integer[Any]], count: int, sha256: str | None) -> Integers:
    if not path.is_file():
        raise DataError(f"{path}: missing; copy the folder of shards again, or prepare it again")
    if path.stat().st_size != count * dtype.itemsize:
        raise DataError(
            f"{path}: damaged ({path.stat().st_size:,} bytes instead of {count * dtype.itemsize:,}); "
            "copy the folder of shards again, or prepare it again"
        )
    if sha256 is not None and file_hash(path) != sha256:
        raise DataError(f"{path}: damaged (its SHA-256 differs from the manifest's); copy or prepare the shards again")
    return np.memmap(path, dtype, "r") if count else np.zeros(0, dtype)  # an empty file cannot be mapped


def _read_counts(directory: Path, facts: ShardFacts) -> NDArray[np.int64]:
    path = directory / COUNTS_NAME
    require_as_written(directory, (COUNTS_NAME,), DataError)
    try:
        counts = read_counts(path)
    except ValueError as error:
        raise DataError(f"{path}: missing or damaged ({error}); prepare the shards again") from error
    if counts.shape != (facts.vocabulary_size,) or int(counts.sum()) != facts.tokens:
        raise DataError(f"{path}: damaged (its counts do not add up to the manifest's); prepare the shards again")
    return counts


def read_counts(path: Path) -> NDArray[np.int64]:
    """(vocabulary,) int64 from a file of numpy. Raises: ValueError: it is missing, damaged, or holds no counts."""
    try:
        # Mapped first: a damaged header may claim terabytes.
        counts = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, which has many ways to fail
        raise ValueError(first_line(error)) from error
    if not isinstance(counts, np.ndarray) or counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise ValueError("it holds no list of whole numbers")
    if not counts.size or not 0 <= int(counts.min()) <= int(counts.max()) < MOST_TOKENS:
        raise ValueError("it holds numbers that count nothing")
    return np.array(counts, np.int64)
