"""Training a WordPiece vocabulary on documents."""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tokenizers import Tokenizer, normalizers, trainers

from electrain.data.text.document import Document
from electrain.data.tokenizer.tokenizer import (
    SPECIAL_TOKENS,
    save_tokenizer,
    tokenizer_hash,
    word_piece_tokenizer,
    wrap,
)
from electrain.foundation.errors import TokenizerError
from electrain.foundation.output_folder import Manifest, one_line_when_full, require_empty, write_manifest

DEFAULT_CHARACTER_COVERAGE = 0.9999
DEFAULT_MAXIMUM_BYTES = 500_000_000


def train_tokenizer(
    documents: Iterable[Document],
    output: Path,
    vocabulary_size: int,
    cased: bool,
    *,
    model_max_length: int = 512,
    character_coverage: float = DEFAULT_CHARACTER_COVERAGE,
    maximum_bytes: int = DEFAULT_MAXIMUM_BYTES,
) -> Manifest:
    """Trains a WordPiece tokenizer and writes it to the folder `output`. [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4.

    The text is kept in a temporary file meanwhile, because the alphabet must be known before the training begins.

    Args:
        vocabulary_size: tokens, at most; fewer if the text has too few words that occur twice.
        cased: keep capital letters and accents; otherwise text is lower-cased and accents are stripped.
        model_max_length: tokens, written into the tokenizer's configuration.
        character_coverage: fraction of the text's characters that the alphabet covers; the rarest become [UNK].
        maximum_bytes: of text; the rest of the documents is not read.
    Returns: the manifest written, with facts vocabulary_size, alphabet_size and bytes.
    Raises: TokenizerError: `vocabulary_size` is smaller than the alphabet.
        RunDirectoryError: `output` is not empty.
    """
    if vocabulary_size < 1:
        raise TokenizerError(f"--vocab-size {vocabulary_size}: must be at least 1")
    existed = output.is_dir()
    require_empty(output)
    backend = word_piece_tokenizer({}, cased=cased)
    prefix = f".{output.name}.text-"
    with (
        one_line_when_full(output),
        _removed_on_failure(output, existed),
        tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=output.parent, prefix=prefix) as text,
    ):
        characters, size = _collect(documents, backend.normalizer, text, maximum_bytes)
        alphabet_size = _alphabet_size(characters, character_coverage)
        _require_room(vocabulary_size, len(_SPECIAL_TOKENS) + alphabet_size, alphabet_size)
        vocabulary = _train(backend, Path(text.name), vocabulary_size, alphabet_size)
    backend = word_piece_tokenizer(vocabulary, cased=cased)
    tokenizer = wrap(backend, model_max_length=model_max_length)
    save_tokenizer(tokenizer, output)
    facts = {
        "vocabulary_size": backend.get_vocab_size(),
        "alphabet_size": alphabet_size,
        "characters_seen": len(characters),
        "cased": cased,
        "bytes": size,
    }
    manifest = Manifest("tokenizer", True, {"tokenizer": tokenizer_hash(tokenizer)}, facts)
    write_manifest(output, manifest)
    return manifest


_SPECIAL_TOKENS = list(SPECIAL_TOKENS.values())


@contextmanager
def _removed_on_failure(output: Path, existed: bool) -> Iterator[None]:
    """Removes the folder again, still empty, when it was made for nothing."""
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                output.rmdir()
        raise


def _collect(
    documents: Iterable[Document], normalizer: normalizers.Normalizer, text: IO[str], maximum_bytes: int
) -> tuple[Counter[str], int]:
    """Writes the normalised documents to `text`; returns how often each character occurs, and the bytes written."""
    characters: Counter[str] = Counter()
    size = 0
    for document in documents:
        line = normalizer.normalize_str(document.text)
        characters.update(line)
        size += len(line.encode())
        text.write(line + "\n")
        if size >= maximum_bytes:
            print(f"tokenizer: the first {size / 1e6:,.0f} MB of text are used", file=sys.stderr)
            break
    text.flush()
    characters.pop(" ", None)
    return characters, size


def _alphabet_size(characters: Counter[str], coverage: float) -> int:
    """How many of the most frequent characters cover the fraction; equally frequent ones stay together."""
    wanted, covered, last = coverage * characters.total(), 0, 0
    for number, (_, count) in enumerate(characters.most_common()):
        if covered >= wanted and count < last:
            return number
        covered, last = covered + count, count
    return len(characters)


def _train(backend: Tokenizer, text: Path, vocabulary_size: int, alphabet_size: int) -> dict[str, int]:
    """Returns the vocabulary, {token: id}; the same text gives the same one.

    The library numbers the pieces "##c" in the order of a hash map, and breaks ties between merges by these numbers
    (huggingface/tokenizers issue 1794): a first training without merges finds them, a second gets them in order.
    """

    def train(size: int, first_tokens: list[str]) -> dict[str, int]:
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=2,
            limit_alphabet=alphabet_size,
            special_tokens=first_tokens,
            continuing_subword_prefix="##",
            show_progress=False,
        )
        trained = Tokenizer.from_str(backend.to_str())
        trained.train([str(text)], trainer)
        vocabulary: dict[str, int] = trained.get_vocab()
        return vocabulary

    characters = train(0, _SPECIAL_TOKENS)
    _require_room(vocabulary_size, len(characters), alphabet_size)
    continuing = sorted(token for token in characters if len(token) == 3 and token.startswith("##"))
    return train(vocabulary_size, _SPECIAL_TOKENS + continuing)


def _require_room(vocabulary_size: int, needed: int, alphabet_size: int) -> None:
    if vocabulary_size < needed:
        raise TokenizerError(
            f"a vocabulary of {vocabulary_size:,} is smaller than the text's alphabet of {alphabet_size:,} characters "
            f"needs (at least {needed:,}); ask for more with --vocab-size, or cover fewer with --character-coverage"
        )
