"""Finds where words begin in a text whose tokenizer makes every Chinese character a token of its own."""

import re
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from electrain.foundation.errors import ConfigurationError

# Ideographs and their extensions A to F, and the compatibility block.
# Source: google-research/bert, tokenization.py: `_is_chinese_char`.
_CHINESE = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)


def require_segmenter() -> ModuleType:
    """The module that finds Chinese words. Raises: ConfigurationError: it is not installed."""
    try:
        import rjieba
    except ImportError as error:
        raise ConfigurationError(
            "--chinese-words: needs rjieba, which finds the words; pip install 'electrain[chinese]'"
        ) from error
    return rjieba


def word_beginnings(text: str, tokens: list[str], starts: list[int]) -> NDArray[np.bool_]:
    """(tokens,) bool: True where a word begins. rjieba finds Chinese words; others begin at pieces without "##".

    Args:
        tokens: the pieces of the text.
        starts: for each piece, the index of its first character in the text.
    Source of the idea: Cui et al. 2021, "Pre-Training with Whole Word Masking for Chinese BERT".
    """
    is_chinese = [bool(_CHINESE.match(text, start)) for start in starts]
    if not any(is_chinese):
        return np.array([not token.startswith("##") for token in tokens], np.bool_)
    begins = {start for _, start, _ in require_segmenter().tokenize(text)}
    return np.array(
        [
            start in begins if chinese else not token.startswith("##")
            for token, start, chinese in zip(tokens, starts, is_chinese, strict=True)
        ],
        np.bool_,
    )
