"""A tokenizer that is read without transformers, which takes a second to import: for folders that need nothing else.

It has the few attributes of `PreTrainedTokenizerFast` that asking a model reads, and gives the same tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from electrain.foundation.errors import TokenizerError
from electrain.foundation.hub import reason_of
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import parse_json_file
from electrain.foundation.output_folder import write_text_durably

_KINDS = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_WAY_OUT = "copy the folder again"


@dataclass(frozen=True)
class EncodedTexts:
    """The tokens of some texts, as `BatchEncoding` gives them."""

    encodings: list[Encoding]

    def __getitem__(self, name: str) -> list[Any]:
        attribute = {"input_ids": "ids", "token_type_ids": "type_ids", "offset_mapping": "offsets"}[name]
        return [getattr(encoding, attribute) for encoding in self.encodings]

    def word_ids(self, number: int) -> list[int | None]:
        """For each token of a text the number of its word."""
        found: list[int | None] = self.encodings[number].word_ids
        return found


class LightTokenizer:
    """The Rust tokenizer with the names of its special tokens."""

    is_fast = True

    def __init__(self, backend: Tokenizer, names: dict[str, str], model_max_length: int, name_or_path: str) -> None:
        self.backend_tokenizer = backend
        self.model_max_length = model_max_length
        self.name_or_path = name_or_path
        self._names = names
        self.all_special_tokens = list(dict.fromkeys(names.values()))
        numbers = map(backend.token_to_id, self.all_special_tokens)
        self.all_special_ids = [number for number in numbers if number is not None]

    def __getattr__(self, name: str) -> Any:
        """`cls_token`, `cls_token_id` and so on; None where the tokenizer has no such token."""
        kind, _, rest = name.partition("_")
        if kind not in _KINDS or rest not in ("token", "token_id"):
            raise AttributeError(name)
        token: str | None = self._names.get(kind)
        if rest == "token" or token is None:
            return token
        return self.backend_tokenizer.token_to_id(token)

    def __len__(self) -> int:
        size: int = self.backend_tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    def __call__(
        self,
        texts: Sequence[Any],
        seconds: Sequence[str | None] | None = None,
        *,
        split_special_tokens: bool = False,
        add_special_tokens: bool = True,
        is_split_into_words: bool = False,
        truncation: bool = False,
        **more: Any,
    ) -> EncodedTexts:
        """The tokens of texts, of pairs, or of lists of words; see `PreTrainedTokenizerFast.__call__`.

        Args: more: `max_length`, to which a truncation cuts; what else transformers needs to be told is not read.
        """
        backend = self.backend_tokenizer
        backend.encode_special_tokens = split_special_tokens
        if truncation:
            backend.enable_truncation(more["max_length"])
        else:
            backend.no_truncation()
        given = list(texts) if seconds is None else list(zip(texts, seconds, strict=True))
        encodings = backend.encode_batch(
            given, add_special_tokens=add_special_tokens, is_pretokenized=is_split_into_words
        )
        return EncodedTexts(encodings)

    def get_vocab(self) -> dict[str, int]:
        """The number of each token."""
        vocabulary: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """The tokens with these numbers."""
        return [self.backend_tokenizer.id_to_token(int(number)) for number in ids]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False, **_: object) -> str:
        """The text of some tokens."""
        text: str = self.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


def save_light(tokenizer: Any, directory: Path, *, model_max_length: int, with_token_types: bool) -> None:
    """Writes a tokenizer of transformers so that both `load_light` and `AutoTokenizer` read it.

    Args: tokenizer: a `PreTrainedTokenizerFast`, which may lack special tokens.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    named = {f"{kind}_token": getattr(tokenizer, f"{kind}_token", None) for kind in _KINDS}
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length,
        "model_input_names": ["input_ids", *(["token_type_ids"] if with_token_types else []), "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{name: str(token) for name, token in named.items() if token is not None},
    }
    directory.mkdir(exist_ok=True)
    write_text_durably(directory / _FILE, backend.to_str(pretty=True))
    write_text_durably(directory / _SETTINGS, to_json(content, indent=2) + "\n")


def load_light(directory: Path) -> LightTokenizer:
    """The tokenizer in a folder that `save_light` wrote. Raises: TokenizerError: it is missing or damaged."""
    content = parse_json_file(directory / _SETTINGS, TokenizerError, way_out=_WAY_OUT)
    settings: dict[str, Any] = content if isinstance(content, dict) else {}
    try:
        backend = Tokenizer.from_file(str(directory / _FILE))
        names = {kind: str(settings[f"{kind}_token"]) for kind in _KINDS if settings.get(f"{kind}_token") is not None}
        lacking = [token for token in names.values() if backend.token_to_id(token) is None]
        longest = int(settings["model_max_length"])
    except Exception as error:  # the Rust library raises exceptions of no particular class
        raise TokenizerError(f"{directory / _FILE}: cannot be read ({reason_of(error)}); {_WAY_OUT}") from error
    if lacking:
        raise TokenizerError(f"{directory / _FILE}: lacks {', '.join(lacking)}; {_WAY_OUT}")
    return LightTokenizer(backend, names, longest, str(directory))
