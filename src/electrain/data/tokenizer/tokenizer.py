"""Tokenizers: loads one from a folder or a vocabulary file, saves it so that it reloads unchanged, tells two apart."""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from electrain.data.tokenizer.letters import Letters
from electrain.foundation.errors import TokenizerError
from electrain.foundation.hub import is_hub_name, reading_options, reason_of
from electrain.foundation.output_folder import text_hash, write_text_durably
from electrain.foundation.sums import verify_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
FRAME = ("pad", "cls", "sep", "mask")  # the special tokens that stand for no text, unlike [UNK]
_BEGINNINGS = ("▁", "Ġ")  # of words, in SentencePiece and in byte-level BPE
DEFAULT_MODEL_MAX_LENGTH = 512  # positions of the published ELECTRA models

# No vocabulary has ten million tokens. Ids are the values of the vocabulary and of the added tokens, or, in the
# configuration, their keys.
_ID_AS_VALUE, _ID_AS_KEY = re.compile(rb":\s*([0-9]{8,})\s*[,}]"), re.compile(rb'"([0-9]{8,})"\s*:')
_LARGE_IDS = {
    **dict.fromkeys(("tokenizer.json", "vocab.json", "added_tokens.json"), _ID_AS_VALUE),
    "tokenizer_config.json": _ID_AS_KEY,
}
_FILES = (*_LARGE_IDS, "special_tokens_map.json", "vocab.txt")  # what a tokenizer is made of


@dataclass(frozen=True)
class SpecialIds:
    """The ids of the special tokens that stand for nothing in a text; a network neither selects nor writes them."""

    pad: int  # fills up shorter rows
    cls: int  # begins each row
    sep: int  # ends each text
    mask: int  # stands in place of a word that is to be restored

    @property
    def all(self) -> tuple[int, ...]:
        """The four ids, in the order of the attributes."""
        return (self.pad, self.cls, self.sep, self.mask)


def frame_ids(tokenizer: "PreTrainedTokenizerFast") -> set[int]:
    """The ids of those of `FRAME` that the tokenizer has; that of a GPT-2 lacks some."""
    ids = (getattr(tokenizer, f"{kind}_token_id") for kind in FRAME)
    return {number for number in ids if number is not None}


def special_ids_of(tokenizer: "PreTrainedTokenizerFast") -> SpecialIds:
    """The ids of `FRAME` in a tokenizer.

    Raises: TokenizerError: the tokenizer lacks one of them. An id of 0 in its place would be some other token.
    """
    ids = {kind: getattr(tokenizer, f"{kind}_token_id") for kind in FRAME}
    missing = [SPECIAL_TOKENS[kind] for kind, number in ids.items() if number is None]
    if missing:
        raise TokenizerError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: has no {', '.join(missing)} token; "
            "train one with `electrain tokenizer`"
        )
    return SpecialIds(**{kind: int(number) for kind, number in ids.items()})


def require_ids_in_a_row(tokenizer: "PreTrainedTokenizerFast", name: str) -> None:
    """Raises TokenizerError if ids are skipped; shards and networks hold as many places as there are tokens.

    transformers skips one for each line of a vocab.txt that repeats a token.
    Args: name: of the tokenizer, for the message.
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= len(tokenizer):
        raise TokenizerError(
            f"{name}: has {len(tokenizer):,} tokens with ids up to {largest:,}, so that some ids are skipped; if its "
            "vocab.txt names a token twice, put another in place of the first, such as [unused0]"
        )


def word_piece_tokenizer(
    vocabulary: dict[str, int], *, cased: bool = False, letters: Letters | None = None
) -> Tokenizer:
    """BERT's tokenizer with `vocabulary` ({token: id}): cleans, sets Chinese characters apart, matches longest first.

    Args:
        cased: keep capital letters and accents.
        letters: what else to do with letters; None: BERT's rules.
    Source: google-research/electra, model/tokenization.py.
    """
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = (letters or Letters(cased)).normalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    if vocabulary:
        add_special_tokens(backend)
    return backend


def add_special_tokens(backend: Tokenizer) -> None:
    """Marks the five special tokens of `backend` as such, and makes it add [CLS] and [SEP]."""
    missing = [token for token in SPECIAL_TOKENS.values() if backend.token_to_id(token) is None]
    if missing:
        raise TokenizerError(f"the vocabulary lacks {', '.join(missing)}; add them, or train another tokenizer")
    backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


def wrap(
    backend: Tokenizer, names: dict[str, str] | None = None, model_max_length: int = DEFAULT_MODEL_MAX_LENGTH
) -> "PreTrainedTokenizerFast":
    """`backend` as a tokenizer of transformers; `names` are its special tokens, {"pad": "[PAD]", ...}; None: BERT's."""
    # Not BertTokenizerFast: it rebuilds its normaliser from its own settings when it is loaded again, so that a cased
    # or custom tokenizer comes back as another one.
    from transformers import PreTrainedTokenizerFast

    tokens = {f"{kind}_token": token for kind, token in (names or SPECIAL_TOKENS).items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=model_max_length,
        **tokens,
    )


def load_tokenizer(path: Path, configuration: Any = None) -> "PreTrainedTokenizerFast":
    """The tokenizer in a folder (of any model, or made by electrain), of a hub's model, or of a vocabulary file.

    A vocabulary file counts as cased if any of its words holds a capital letter.

    Args: configuration: of the model in that folder, if it was read already; None: transformers reads it again.
    Raises: TokenizerError: missing, damaged, not a fast tokenizer, or without one of the five special tokens.
    """
    if path.is_file():
        vocabulary = _read_vocabulary(path)
        cased = any(token != token.lower() for token in vocabulary if not token.startswith(("[", "<")))
        return wrap(word_piece_tokenizer(vocabulary, cased=cased))
    _require_sentence_piece(path)
    named = ("tokenizer.json", "tokenizer_config.json", *_sentence_piece_models(path))
    if is_hub_name(str(path)) or any((path / name).is_file() for name in named):
        return _load_folder(path, configuration)
    if not path.is_dir():
        raise TokenizerError(
            f"{path}: no such tokenizer; give a folder with tokenizer.json, a vocab.txt, or a model of the hub as "
            "OWNER/NAME"
        )
    if (path / "vocab.txt").is_file():
        return load_tokenizer(path / "vocab.txt")
    raise TokenizerError(f"{path}: holds no tokenizer.json and no vocab.txt; give a tokenizer's folder")


def save_tokenizer(
    tokenizer: "PreTrainedTokenizerFast",
    directory: Path,
    *,
    with_token_types: bool = True,
    model_max_length: int | None = None,
) -> None:
    """Writes `tokenizer` into `directory`, from where AutoTokenizer of transformers 4.57 and 5 loads it unchanged.

    Args:
        with_token_types: False for models that take no token_type_ids (ModernBERT).
        model_max_length: longest input in tokens; None: what the tokenizer has.
    """
    directory.mkdir(parents=True, exist_ok=True)
    types = ["token_type_ids"] if with_token_types else []
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length or tokenizer.model_max_length,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{f"{kind}_token": str(getattr(tokenizer, f"{kind}_token")) for kind in SPECIAL_TOKENS},
    }
    write_text_durably(directory / "tokenizer.json", plain_backend(tokenizer).to_str(pretty=True))
    content = json.dumps(configuration, indent=2, ensure_ascii=False) + "\n"
    write_text_durably(directory / "tokenizer_config.json", content)


def plain_backend(tokenizer: "PreTrainedTokenizerFast") -> Tokenizer:
    """A copy of the Rust tokenizer inside that neither truncates nor pads."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def tokenizer_hash(source: "Path | PreTrainedTokenizerFast") -> str:
    """A hash of what the tokenizer does: normaliser, splitting, vocabulary, special tokens, what it puts around texts.

    The same tokenizer in another file, formatting or version of the library has the same hash.
    Raises: TokenizerError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(source) if isinstance(source, Path) else source
    backend = plain_backend(tokenizer)
    content = json.loads(backend.to_str())
    if content["normalizer"] and content["normalizer"].get("strip_accents", 0) is None:
        content["normalizer"]["strip_accents"] = content["normalizer"]["lowercase"]  # what leaving it out means
    pair = backend.encode("", "")
    behaviour = {
        **{part: content[part] for part in ("normalizer", "pre_tokenizer", "model")},
        "added_tokens": sorted(content["added_tokens"], key=lambda token: int(token["id"])),
        "special_ids": {kind: getattr(tokenizer, f"{kind}_token_id") for kind in SPECIAL_TOKENS},
        # What two kinds of post-processor do alike is written differently in their JSON, so the result is compared.
        "around_texts": [backend.encode("").ids, pair.ids, pair.type_ids],
    }
    return text_hash(json.dumps(behaviour, sort_keys=True))


def _load_folder(path: Path, configuration: Any) -> "PreTrainedTokenizerFast":
    from transformers import AutoTokenizer

    options = reading_options(str(path), TokenizerError)
    verify_sums(path, lambda name: name.split("/")[-1] in _FILES, TokenizerError)
    _require_small_ids(path)
    try:
        loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(path), config=configuration, **options)
        backend = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    except BaseException as error:  # damaged files raise whatever the parser of that file raises
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # the Rust library's own
            raise
        reason = reason_of(error)
        raise TokenizerError(f"{path}: the tokenizer cannot be read ({reason}); give another, or train one") from error
    if len(set(backend.get_vocab()) - set(loaded.all_special_tokens)) <= 1:
        # Where the file of the vocabulary is missing, transformers makes one of the special tokens, without a word.
        raise TokenizerError(
            f"{path}: the tokenizer has special tokens only, and no words; put the model's tokenizer.json there"
        )
    names = {kind: getattr(loaded, f"{kind}_token", None) for kind in SPECIAL_TOKENS}
    missing = [kind for kind, token in names.items() if token is None]
    if missing:
        raise TokenizerError(
            f"{path}: the tokenizer has no {', '.join(missing)} token; train one with `electrain tokenizer`"
        )
    return wrap(backend, {kind: str(token) for kind, token in names.items()}, loaded.model_max_length)


def _sentence_piece_models(folder: Path) -> list[str]:
    """The names of SentencePiece's own files, from which transformers makes a fast tokenizer (ALBERT, DeBERTa-v3)."""
    return sorted(path.name for path in folder.glob("*.model")) if folder.is_dir() else []


def _require_sentence_piece(folder: Path) -> None:
    """Raises TokenizerError if only packages that are not installed can read the tokenizer of a folder."""
    models = _sentence_piece_models(folder)
    if not models or (folder / "tokenizer.json").is_file():
        return
    needed = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
    missing = [package for module, package in needed.items() if not _is_installed(module)]
    if missing:
        raise TokenizerError(
            f"{folder}: its tokenizer is a SentencePiece model ({models[0]}), which cannot be read without "
            f"{' and '.join(missing)}; run pip install {' '.join(missing)}, or put the model's tokenizer.json there"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def _require_small_ids(folder: Path) -> None:
    """Raises TokenizerError for an id such as 2^31, for which the library takes gigabytes before it fails."""
    for name, pattern in _LARGE_IDS.items():
        path = folder / name
        found = pattern.search(path.read_bytes()) if path.is_file() else None
        if found:
            number = found[1].decode()[:20]
            raise TokenizerError(f"{path}: damaged (a token with the id {number}); copy the tokenizer again")


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        # Not splitlines(): some vocabularies have U+2028, a line separator, as a token.
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: cannot be read as a vocabulary, one token per line ({error})") from error
    vocabulary = {token: number for number, token in enumerate(lines)}
    missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
    if missing or len(vocabulary) != len(lines):
        fault = f"lacks {', '.join(missing)}" if missing else "names a token twice"
        raise TokenizerError(f"{path}: the vocabulary {fault}; give one token per line, with the special tokens")
    return vocabulary


def is_of_sequences(backend: Tokenizer) -> bool:
    """True for a tokenizer of characters or k-mers: white space means nothing to it."""
    return isinstance(backend.pre_tokenizer, pre_tokenizers.Split) and isinstance(backend.decoder, decoders.Fuse)


def continues_word(tokenizer: "PreTrainedTokenizerFast") -> NDArray[np.bool_]:
    """(vocabulary,) bool: True for the pieces that continue a word, such as ##ing.

    SentencePiece and byte-level BPE mark the pieces that begin a word instead ("▁the", "Ġthe"). There, punctuation and
    East Asian characters continue no word, as in a WordPiece vocabulary.
    """
    if is_of_sequences(tokenizer.backend_tokenizer):  # "##" may be two bonds of a molecule
        return np.zeros(len(tokenizer), np.bool_)
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    beginning = next((mark for mark in _BEGINNINGS if any(piece.startswith(mark) for piece in pieces)), "")
    if isinstance(tokenizer.backend_tokenizer.model, models.WordPiece) or not beginning:
        return np.array([piece.startswith("##") for piece in pieces], np.bool_)
    special = set(tokenizer.all_special_tokens)
    return np.array([piece not in special and _goes_on(piece, beginning) for piece in pieces], np.bool_)


def _goes_on(piece: str, beginning: str) -> bool:
    is_of_a_word = any(letter.isalnum() and not "\u2e80" <= letter <= "\u9fff" for letter in piece)
    return is_of_a_word and not piece.startswith(beginning)
