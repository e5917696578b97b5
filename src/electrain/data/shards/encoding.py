"""From raw texts to token ids: the work of one process of `prepare`. Run as a module, it serves a parent over pipes."""

import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from electrain.data.text.cleaning import clean, dropped_characters
from electrain.data.tokenizer.chinese_words import word_beginnings
from electrain.data.tokenizer.letters import keeps_joiners
from electrain.foundation.child_process import receive, send

_PART_CHARACTERS = 512  # about 80 words; measured with benchmarks/preparation.py
Bytes = bytes  # inside the class below, `bytes` is a field


class EncodedBatch(NamedTuple):
    """The tokens of a batch of texts, one after another, and the texts' counts as in `CorpusCounts`."""

    tokens: bytes  # little-endian token ids, uint16 or uint32
    lengths: bytes  # little-endian int64; tokens of each text
    bytes: int
    dropped: dict[str, int]  # how often each character was left out
    invalid_bytes: int
    begins_word: Bytes = b""  # one byte for each token, 1 where a word begins; empty unless words were wanted


class Encoder:
    """A tokenizer that adds no [CLS] and [SEP], and takes special tokens typed in a text as plain text.

    With BERT's tokenizer, ASCII text goes round the normaliser, which is a third of the whole cost: of all that the
    normaliser does, cleaned ASCII text needs lower-casing alone. Texts are cut into parts at spaces, so that one
    accented letter only slows down its own part. The parts have the tokens of the whole, since BERT's splitting starts
    afresh at each space.
    """

    def __init__(self, tokenizer_json: str) -> None:
        """Args: tokenizer_json: the content of a `tokenizer.json` that neither truncates nor pads."""
        self._whole = _backend(tokenizer_json)
        self.keeps_joiners = keeps_joiners(self._whole)
        self._ascii: Tokenizer | None = None
        content = json.loads(tokenizer_json)
        normalizer = content["normalizer"] or {}
        steps = normalizer.get("normalizers", [])
        if [step["type"] for step in steps] == ["NFC", "BertNormalizer"]:  # NFC leaves ASCII as it is
            normalizer = steps[1]
        kinds = [part.get("type") for part in (normalizer, content["pre_tokenizer"] or {}, content["model"])]
        # An added token that is not special would be matched in the text, also across the spaces where it is cut.
        is_plain = all(token["special"] for token in content["added_tokens"])
        if kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and is_plain:
            self._lowercase = bool(normalizer["lowercase"])
            self._ascii = _backend(json.dumps(content | {"normalizer": None}))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each cleaned text."""
        if self._ascii is None:
            return [encoding.ids for encoding in self._whole.encode_batch_fast(texts, add_special_tokens=False)]
        cuts = [_cut_at_spaces(text) for text in texts]
        ascii_parts = [part for parts in cuts for part in parts if part.isascii()]
        if self._lowercase:
            ascii_parts = [part.lower() for part in ascii_parts]
        other_parts = [part for parts in cuts for part in parts if not part.isascii()]
        # One call for all parts of each kind, since each call into the library costs some time.
        from_ascii = iter(self._ascii.encode_batch_fast(ascii_parts, add_special_tokens=False))
        from_other = iter(self._whole.encode_batch_fast(other_parts, add_special_tokens=False))
        return [
            [token for part in parts for token in next(from_ascii if part.isascii() else from_other).ids]
            for parts in cuts
        ]

    def encode_words(self, texts: Sequence[str]) -> list[tuple[list[int], NDArray[np.bool_]]]:
        """For each cleaned text its token ids, and a flag for each token: does a word begin there?"""
        return [
            (encoding.ids, word_beginnings(text, encoding.tokens, [start for start, _ in encoding.offsets]))
            for text, encoding in zip(texts, self._whole.encode_batch(texts, add_special_tokens=False), strict=True)
        ]


def _backend(tokenizer_json: str) -> Tokenizer:
    backend = Tokenizer.from_str(tokenizer_json)
    backend.encode_special_tokens = True
    return backend


def _cut_at_spaces(text: str) -> list[str]:
    parts, start = [], 0
    while len(text) - start > _PART_CHARACTERS:
        cut = text.find(" ", start + _PART_CHARACTERS)
        if cut < 0:
            break
        parts.append(text[start:cut])
        start = cut + 1
    parts.append(text[start:])
    return parts


def encode_texts(encoder: Encoder, texts: Sequence[str], dtype: str, *, with_words: bool = False) -> EncodedBatch:
    """Cleans and encodes texts, without [CLS] and [SEP].

    Args:
        dtype: "<u2" or "<u4".
        with_words: find where words begin, which doubles the cost.
    """
    cleaned = [clean(text, keeps_joiners=encoder.keeps_joiners) for text in texts]
    dropped: Counter[str] = Counter()
    for text, one in zip(texts, cleaned, strict=True):
        if one.dropped_characters:
            dropped += dropped_characters(text, keeps_joiners=encoder.keeps_joiners)
    begins = b""
    if with_words:
        pairs = encoder.encode_words([one.text for one in cleaned])
        begins = b"".join(begin.tobytes() for _, begin in pairs)
        ids = [np.array(one, dtype) for one, _ in pairs]
    else:
        ids = [np.array(one, dtype) for one in encoder.encode([one.text for one in cleaned])]
    return EncodedBatch(
        b"".join(one.tobytes() for one in ids),
        np.array([len(one) for one in ids], "<i8").tobytes(),
        sum(len(one.text.encode()) for one in cleaned),
        dict(dropped),
        sum(one.invalid_bytes for one in cleaned),
        begins,
    )


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answers each batch of texts with its tokens, until the parent closes the pipe or is gone.

    The first message is (content of tokenizer.json, dtype, with_words); each further one is a list of texts.
    """
    first = receive(requests)
    assert isinstance(first, tuple)
    tokenizer_json, dtype, with_words = first
    encoder = Encoder(tokenizer_json)
    while True:
        try:
            texts = receive(requests)
        except EOFError:
            return
        assert isinstance(texts, list)
        send(replies, tuple(encode_texts(encoder, texts, dtype, with_words=with_words)))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent closes the pipe
    serve(sys.stdin.buffer, sys.stdout.buffer)
