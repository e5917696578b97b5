"""Training a WordPiece vocabulary on documents."""

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers

from electrain.data.text.corpus import Document
from electrain.data.tokenizer.tokenizer import (
    SPECIAL_TOKENS,
    save_tokenizer,
    tokenizer_hash,
    word_piece_tokenizer,
    wrap,
)
from electrain.foundation.errors import TokenizerError
from electrain.foundation.output_folder import Manifest, one_line_when_full, require_empty, write_manifest
from electrain.foundation.progress import say

DEFAULT_CHARACTER_COVERAGE = 0.9999
MAXIMUM_BYTES = 500_000_000  # more text would hardly change a vocabulary, and word counts are kept in memory
_ACCENT_SAMPLE_CHARACTERS = 4_000_000
_SPECIAL_TOKENS = list(SPECIAL_TOKENS.values())
_MANY_ACCENTED_WORDS = 0.01  # one word in a hundred: far more than English has in its borrowed words


def train_tokenizer(
    documents: Iterable[Document],
    output: Path,
    vocabulary_size: int,
    cased: bool,
    *,
    character_coverage: float = DEFAULT_CHARACTER_COVERAGE,
) -> Manifest:
    """Trains a WordPiece tokenizer and writes it to the folder `output`. [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4.

    At most `MAXIMUM_BYTES` of text are read. The text waits in a temporary file, because the alphabet must be known
    before the training begins.

    Args:
        vocabulary_size: largest number of tokens; there are fewer if too few words of the text occur twice.
        cased: keep capital letters and accents; otherwise text is lower-cased and accents are stripped.
        character_coverage: fraction of the text's characters that the alphabet covers; the rarest become [UNK].
    Returns: the manifest written, with facts vocabulary_size, alphabet_size and bytes.
    Raises: TokenizerError: `vocabulary_size` is smaller than the alphabet.
        RunDirectoryError: `output` is not empty.
    """
    if vocabulary_size < 1:
        raise TokenizerError(f"--vocab-size {vocabulary_size}: must be at least 1")
    existed = output.is_dir()
    require_empty(output)
    backend = word_piece_tokenizer({}, cased=cased)
    prefix = f".{output.name}.text-"  # beside the output: the system's folder for temporary files may be small
    with (
        one_line_when_full(output),
        _removed_on_failure(output, existed),
        tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=output.parent, prefix=prefix) as text,
    ):
        characters, size = _collect(documents, backend.normalizer, text, None if cased else _AccentSample())
        alphabet_size = _alphabet_size(characters, character_coverage)
        _require_room(vocabulary_size, len(_SPECIAL_TOKENS) + alphabet_size, alphabet_size)
        vocabulary = _train(backend, Path(text.name), vocabulary_size, alphabet_size)
    backend = word_piece_tokenizer(vocabulary, cased=cased)
    tokenizer = wrap(backend)
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


@contextmanager
def _removed_on_failure(output: Path, existed: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                output.rmdir()
        raise


class _AccentSample:
    """The lower-cased words of the first megabytes of text, to tell how many lose an accent."""

    def __init__(self) -> None:
        self._lower = normalizers.BertNormalizer(strip_accents=False, lowercase=True)
        self._strip = normalizers.BertNormalizer(handle_chinese_chars=False, strip_accents=True, lowercase=True)
        self._split = pre_tokenizers.BertPreTokenizer()
        self._room = _ACCENT_SAMPLE_CHARACTERS
        self._words: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Counts the words of `text`, as long as the sample has room."""
        part = text[: self._room]
        self._room -= len(part)
        if part:
            words = self._split.pre_tokenize_str(self._lower.normalize_str(part))
            self._words.update(unicodedata.normalize("NFC", word) for word, _ in words)

    def say_if_many(self) -> None:
        """Says on stderr that accents are lost, if they are in many words, with the most telling example."""
        changed: dict[str, str] = {}
        for word in self._words:
            # Stripping also takes Hangul apart; NFC joins it again, so Korean words count as unchanged.
            plain = word if word.isascii() else unicodedata.normalize("NFC", self._strip.normalize_str(word))
            if plain != word:
                changed[word] = plain
        fraction = sum(self._words[word] for word in changed) / max(self._words.total(), 1)
        if fraction < _MANY_ACCENTED_WORDS:
            return
        # Best a word that becomes another word of the corpus, and of those the one whose rarer half is most frequent.
        word = max(changed, key=lambda word: (min(self._words[word], self._words[changed[word]]), self._words[word]))
        other = f', like the word "{changed[word]}" of the corpus' if changed[word] in self._words else ""
        say(
            f"tokenizer: accents are stripped with lower-casing, which changes {fraction:.1%} of the words: "
            f'"{word}" becomes "{changed[word]}"{other}; --cased keeps accents and capital letters'
        )


def _collect(
    documents: Iterable[Document], normalizer: normalizers.Normalizer, text: IO[str], accents: _AccentSample | None
) -> tuple[Counter[str], int]:
    """Writes the normalised documents to `text`; returns how often each character occurs, and the bytes written."""
    characters: Counter[str] = Counter()
    size = 0
    for document in documents:
        if accents is not None:
            accents.add(document.text)
        line = normalizer.normalize_str(document.text)
        characters.update(line)
        size += len(line.encode())
        text.write(line + "\n")
        if size >= MAXIMUM_BYTES:
            say(f"tokenizer: only the first {size / 1e6:,.0f} MB of text are used")
            break
    text.flush()
    if accents is not None:
        accents.say_if_many()
    characters.pop(" ", None)
    return characters, size


def _alphabet_size(characters: Counter[str], coverage: float) -> int:
    """The number of most frequent characters that together cover the fraction `coverage` of the text.

    Equally frequent characters are all in or all out: which of them came first would depend on the order of the text.
    """
    wanted, covered, last = coverage * characters.total(), 0, 0
    for number, (_, count) in enumerate(characters.most_common()):
        if covered >= wanted and count < last:
            return number
        covered, last = covered + count, count
    return len(characters)


def _train(backend: Tokenizer, text: Path, vocabulary_size: int, alphabet_size: int) -> dict[str, int]:
    """Returns the vocabulary, {token: id}; the same text gives the same one.

    The library numbers the pieces "##c" in the order of a hash map and breaks ties between merges by these numbers
    (huggingface/tokenizers issue 1794), so two trainings on one text would differ. Therefore it trains twice: without
    any merge, to find these pieces, and then with the pieces given in sorted order as if they were special tokens.
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
            f"needs (at least {needed:,}); raise --vocab-size, or lower --character-coverage"
        )
