"""Tokenizers for the output of a decoder: trains one that loses nothing, and makes text of what a decoder wrote."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from electrain.data.tokenizer.tokenizer import SPECIAL_TOKENS, add_special_tokens, load_tokenizer, wrap
from electrain.foundation.errors import TokenizerError
from electrain.foundation.hub import reading_options, reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTES = 256
LONGEST_TARGET_TOKENS = 1 << 20  # no limit of the tokenizer's own: the decoder's positions are the limit


class WritingIds(NamedTuple):
    """The special tokens of a decoder's vocabulary, as ids."""

    start: int  # what the decoder reads before the first token that it writes
    end: int  # what it writes last
    pad: int


def train_target_tokenizer(texts: Iterable[str], vocabulary_size: int) -> "PreTrainedTokenizerFast":
    """A cased byte-level BPE tokenizer, from which every text in any script comes back exactly.

    [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4 and the 256 bytes follow; the same texts give the same vocabulary.

    Args:
        texts: texts like those that the decoder shall write.
        vocabulary_size: largest number of tokens; there are fewer if too few pairs of tokens occur twice.
    Raises: TokenizerError: `vocabulary_size` has no room for the bytes.
    Source: Radford et al. 2019, section 2.2.
    """
    least = len(SPECIAL_TOKENS) + _BYTES
    if vocabulary_size < least:
        raise TokenizerError(
            f"a target vocabulary of {vocabulary_size} has no room for {len(SPECIAL_TOKENS)} special tokens and "
            f"{_BYTES} bytes; make it at least {least}"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    add_special_tokens(backend)
    return wrap(backend, model_max_length=LONGEST_TARGET_TOKENS)


def load_target_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a decoder: one that electrain made, or a causal model's own, which may only have an end of text.

    Raises: TokenizerError: missing, damaged, or without a token that ends a text.
    """
    if not (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(folder)
    from transformers import AutoTokenizer

    try:
        options = reading_options(str(folder), TokenizerError)
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(folder), **options)
    except Exception as error:  # damaged files raise whatever the parser of that file raises
        raise TokenizerError(
            f"{folder}: the tokenizer cannot be read ({reason_of(error)}); give another folder"
        ) from error
    if all(getattr(tokenizer, f"{kind}_token") is not None for kind in SPECIAL_TOKENS):
        return load_tokenizer(folder)
    writing_ids(tokenizer, str(folder))
    return tokenizer


def writing_ids(tokenizer: "PreTrainedTokenizerFast", source: str = "the target tokenizer") -> WritingIds:
    """Start, end and padding: [CLS], [SEP] and [PAD] where the tokenizer has them, otherwise those of a causal model.

    Where a causal model's tokenizer has an end of text alone, that serves as all three.
    Raises: TokenizerError: there is no end, or the tokenizer is not a fast one.
    """
    end = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    if end is None or not tokenizer.is_fast:
        lack = "neither a [SEP] nor an end-of-text token" if end is None else "no tokenizer.json"
        raise TokenizerError(f"{source}: has {lack}; give another tokenizer, or let one be trained")
    start = next(one for one in (tokenizer.cls_token_id, tokenizer.bos_token_id, end) if one is not None)
    return WritingIds(start, end, end if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def is_word_piece(tokenizer: "PreTrainedTokenizerFast") -> bool:
    """True for a WordPiece tokenizer: it forgets spaces, so decoded text needs detokenizing."""
    return isinstance(tokenizer.backend_tokenizer.model, models.WordPiece)


def written_text(tokenizer: "PreTrainedTokenizerFast", token_ids: Sequence[int]) -> str:
    """The text that a decoder wrote, without special tokens; from WordPiece, with spaces around all words and marks.

    WordPiece's own decoder is not used, because it also rewrites English ("do not" as "don't").
    """
    if not is_word_piece(tokenizer):
        text: str = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.convert_ids_to_tokens([token for token in token_ids if token not in special])
    return " ".join(pieces).replace(" ##", "")
