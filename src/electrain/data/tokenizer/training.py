"""Training a tokenizer on documents: WordPiece, or characters and k-mers for sequences without spaces."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from tokenizers import Tokenizer, normalizers, trainers

from electrain.data.text.corpus import Document
from electrain.data.tokenizer.letters import Letters
from electrain.data.tokenizer.lost_letters import LetterSample
from electrain.data.tokenizer.sequences import sequence_tokenizer, sequence_vocabulary
from electrain.data.tokenizer.tokenizer import (
    SPECIAL_TOKENS,
    plain_backend,
    save_tokenizer,
    tokenizer_hash,
    word_piece_tokenizer,
    wrap,
)
from electrain.data.tokenizer.unknown import UnknownShare, say_unreachable, unknown_characters, unknown_share
from electrain.foundation.errors import ConfigurationError, TokenizerError
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
from electrain.foundation.progress import counted, say
from electrain.foundation.sums import SUMS_NAME, write_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DEFAULT_CHARACTER_COVERAGE = 0.9999
MAXIMUM_BYTES = 500_000_000  # more text would hardly change a vocabulary, and word counts are kept in memory
DEFAULT_K = 6  # Dalla-Torre et al. 2023, "Nucleotide Transformer"
OUR_FILES = ("tokenizer.json", "tokenizer_config.json", SUMS_NAME)
_UNKNOWN_SAMPLE_BYTES = 2_000_000  # a share of one in a thousand is known to a few per cent of itself, in a second
_SPECIAL_TOKENS = list(SPECIAL_TOKENS.values())
_FEW_K_MERS = 0.9
_FEW_SMALL_LETTERS = 0.01
_FAR_SMALLER = 0.5  # of the tokens that were asked for
_UNKNOWN_REMEDY = (
    "they are words of more than 100 characters, or hold characters beyond --character-coverage; for sequences without "
    "spaces, such as proteins, give --kind characters"
)


@dataclass(frozen=True)
class TokenizerKind:
    """What a tokenizer cuts texts into.

    Attributes:
        name: wordpiece: frequent words, and pieces of the others; characters; k-mers: k characters at a time.
        k: number of characters in a k-mer.
        letters: how wordpiece reads letters; the other two kinds keep them as they are.
    """

    name: Literal["wordpiece", "characters", "k-mers"] = "wordpiece"
    k: int = DEFAULT_K
    letters: Letters = field(default_factory=Letters)

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 64:
            raise ConfigurationError(
                f"--k {self.k}: must be from 2 to 64; for single characters, give --kind characters"
            )
        letters = self.letters
        if self.name != "wordpiece" and (letters.keeps_accents or letters.language or letters.keeps_joiners):
            raise ConfigurationError(
                f"--kind {self.name}: keeps all letters as they are; leave out --keep-accents, --language and "
                "--keep-joiners"
            )

    def backend(self, vocabulary: dict[str, int]) -> Tokenizer:
        """The tokenizer of this kind with a vocabulary, {token: id}."""
        if self.name == "wordpiece":
            return word_piece_tokenizer(vocabulary, letters=self.letters)
        return sequence_tokenizer(vocabulary, self.k if self.name == "k-mers" else 1)


def train_tokenizer(
    documents: Iterable[Document],
    output: Path,
    vocabulary_size: int,
    cased: bool,
    *,
    character_coverage: float = DEFAULT_CHARACTER_COVERAGE,
    kind: TokenizerKind | None = None,
    allow_unknown: bool = False,
) -> Manifest:
    """Trains a tokenizer and writes it to the folder `output`. [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4.

    At most `MAXIMUM_BYTES` of text are read. The text waits in a temporary file, because the alphabet must be known
    before the training begins.

    Args:
        output: a new or empty folder, or one that an interrupted training left, which starts over.
        vocabulary_size: largest number of tokens; there are fewer if too few words of the text occur twice.
        cased: keep capital letters and accents; otherwise text is lower-cased and accents are stripped.
        character_coverage: fraction of the text's characters that the alphabet covers; the rarest become [UNK].
        kind: what to cut texts into; None: WordPiece, with letters by `cased`.
        allow_unknown: go on where more than a fifth of the tokens are [UNK].
    Returns: the manifest written, with facts vocabulary_size, alphabet_size and bytes.
    Raises: TokenizerError: `vocabulary_size` is smaller than the alphabet, or too many tokens are [UNK].
        RunDirectoryError: `output` is not empty.
    """
    if vocabulary_size < 1:
        raise TokenizerError(f"--vocab-size {vocabulary_size}: must be at least 1")
    kind = kind or TokenizerKind(letters=Letters(cased))
    existed = output.is_dir()
    with locked(output):
        begin_anew(output, "tokenizer", OUR_FILES)
        try:
            with (
                one_line_when_full(output),
                # Without a name, so that nothing is left of it whatever happens. It is beside the output, because the
                # system's folder for temporary files may be small.
                tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=output.parent) as text,
            ):
                vocabulary, facts = _vocabulary(documents, kind, text, vocabulary_size, character_coverage)
                tokenizer = wrap(kind.backend(vocabulary))
                unknown = _unknown_share(tokenizer, text, facts["bytes"])
                named = partial(_unknown_characters, tokenizer, text, facts["bytes"])
                if not allow_unknown:
                    unknown.require_few("the corpus", _UNKNOWN_REMEDY, named)
                unknown.say("tokenizer: the corpus", _UNKNOWN_REMEDY, named)
                say_unreachable(tokenizer, f"tokenizer: {output}")
                save_tokenizer(tokenizer, output)
                write_sums(output)
                facts["unknown_fraction"] = round(unknown.unknown / max(unknown.tokens, 1), 5)
                facts[HASHES] = hashes_of(output, [SUMS_NAME])
                manifest = Manifest("tokenizer", True, {"tokenizer": tokenizer_hash(tokenizer)}, facts)
                write_manifest(output, manifest)
        except BaseException:
            abandon_work(output, OUR_FILES, existed=existed)
            raise
    return manifest


def _vocabulary(
    documents: Iterable[Document], kind: TokenizerKind, text: IO[str], vocabulary_size: int, character_coverage: float
) -> tuple[dict[str, int], dict[str, Any]]:
    """The vocabulary, {token: id}, and the facts for the manifest; `text` then holds the normalised documents."""
    is_word_piece, letters = kind.name == "wordpiece", kind.letters
    backend = kind.backend({})
    sample = LetterSample(letters) if is_word_piece and not letters.cased else None
    characters, size = _collect(documents, backend.normalizer, text, sample)
    alphabet_size = _alphabet_size(characters, character_coverage)
    _require_room(vocabulary_size, len(_SPECIAL_TOKENS) + alphabet_size, alphabet_size)
    if is_word_piece:
        vocabulary = _train(backend, text, vocabulary_size, alphabet_size)
        _say_few_words(text, len(vocabulary), vocabulary_size)
    else:
        vocabulary = _sequences(kind, text, characters, alphabet_size, vocabulary_size)
    facts = {
        "kind": kind.name,
        "vocabulary_size": len(vocabulary),
        "alphabet_size": alphabet_size,
        "characters_seen": len(characters),
        "cased": letters.cased or not is_word_piece,
        "bytes": size,
    }
    return vocabulary, facts


def _unknown_share(tokenizer: "PreTrainedTokenizerFast", text: IO[str], size: int) -> UnknownShare:
    """The share of [UNK] in about `_UNKNOWN_SAMPLE_BYTES` of the text, from all of its parts."""
    backend = plain_backend(tokenizer)
    backend.encode_special_tokens = True
    ids = (backend.encode(line, add_special_tokens=False).ids for line in _sample(text, size))
    return unknown_share(ids, tokenizer)


def _unknown_characters(tokenizer: "PreTrainedTokenizerFast", text: IO[str], size: int) -> list[str]:
    return unknown_characters(_sample(text, size), tokenizer)


def _sample(text: IO[str], size: int) -> Iterator[str]:
    """Lines of about `_UNKNOWN_SAMPLE_BYTES`, from all parts of the text."""
    text.seek(0)
    return islice(text, 0, None, max(1, size // _UNKNOWN_SAMPLE_BYTES))


def _say_both_cases(characters: Counter[str]) -> None:
    """Says it where a genome's repeats are in small letters, which makes other k-mers of them."""
    pairs = [(one, one.lower()) for one in characters if one != one.lower() and one.lower() in characters]
    rarer = sum(min(characters[large], characters[small]) for large, small in pairs)
    if rarer > _FEW_SMALL_LETTERS * characters.total():
        large, small = max(pairs, key=lambda pair: characters[pair[0]])
        say(
            f"tokenizer: {rarer / characters.total():.0%} of the letters are {small} beside {large} and the like, and "
            "count as other letters; if they are the repeats of a genome, make all letters capital first"
        )


def _sequences(
    kind: TokenizerKind, text: IO[str], characters: Counter[str], alphabet_size: int, vocabulary_size: int
) -> dict[str, int]:
    """The vocabulary of characters or k-mers; says so where most k-mers found no place in it."""
    text.seek(0)
    # By frequency, and equally frequent ones by name, so that the order of the text does not matter.
    alphabet = sorted(characters, key=lambda one: (-characters[one], one))[:alphabet_size]
    k = kind.k if kind.name == "k-mers" else 1
    if k > 1:
        _say_both_cases(characters)
    vocabulary, covered = sequence_vocabulary(text, alphabet, k, vocabulary_size)
    if covered < _FEW_K_MERS:
        say(
            f"tokenizer: {covered:.0%} of the {k}-mers are in the vocabulary, the others become single characters; "
            "raise --vocab-size, or lower --k"
        )
    return vocabulary


def _collect(
    documents: Iterable[Document], normalizer: normalizers.Normalizer, text: IO[str], sample: LetterSample | None
) -> tuple[Counter[str], int]:
    """Writes the normalised documents to `text`; returns how often each character occurs, and the bytes written."""
    characters: Counter[str] = Counter()
    size = 0
    for document in documents:
        if sample is not None:
            sample.add(document.text)
        line = normalizer.normalize_str(document.text)
        characters.update(line)
        size += len(line.encode())
        text.write(line + "\n")
        if size >= MAXIMUM_BYTES:
            say(f"tokenizer: only the first {size / 1e6:,.0f} MB of text are used")
            break
    if sample is not None:
        sample.say_what_is_lost()
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


def _train(backend: Tokenizer, text: IO[str], vocabulary_size: int, alphabet_size: int) -> dict[str, int]:
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
        text.seek(0)
        trained.train_from_iterator(text, trainer)
        vocabulary: dict[str, int] = trained.get_vocab()
        return vocabulary

    characters = train(0, _SPECIAL_TOKENS)
    _require_room(vocabulary_size, len(characters), alphabet_size)
    continuing = sorted(token for token in characters if len(token) == 3 and token.startswith("##"))
    return train(vocabulary_size, _SPECIAL_TOKENS + continuing)


def _say_few_words(text: IO[str], size: int, asked: int) -> None:
    """Says why a vocabulary is far smaller than was asked for."""
    if size >= _FAR_SMALLER * asked:
        return
    text.seek(0)
    words = Counter(word for line in text for word in line.split())
    twice = sum(count > 1 for count in words.values())
    different = counted(len(words), "different word")
    say(
        f"tokenizer: {size:,} of {asked:,} tokens: the text has only {different} ({twice:,} of them more than once, as "
        "a token must occur); text with further words gives more tokens"
    )


def _require_room(vocabulary_size: int, needed: int, alphabet_size: int) -> None:
    if vocabulary_size < needed:
        raise TokenizerError(
            f"a vocabulary of {vocabulary_size:,} is smaller than the text's alphabet of "
            f"{counted(alphabet_size, 'character')} needs (at least {needed:,}); raise --vocab-size, or lower "
            "--character-coverage"
        )
