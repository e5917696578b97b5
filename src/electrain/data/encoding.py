"""From raw texts to token ids: what one process of `prepare` does. Run as a module, it serves a parent over pipes."""

import marshal
import signal
import struct
import sys
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from electrain.data.cleaning import clean


class EncodedBatch(NamedTuple):
    """The tokens of a batch of texts, one after another.

    Attributes:
        tokens: little-endian token ids, uint16 or uint32.
        lengths: little-endian int64; tokens of each text.
        bytes: of cleaned text in UTF-8.
        dropped_characters: see CorpusCounts.
        invalid_bytes: see CorpusCounts.
    """

    tokens: bytes
    lengths: bytes
    bytes: int
    dropped_characters: int
    invalid_bytes: int


def make_encoder(tokenizer_json: str) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, set so that special tokens written out in a text stay plain text."""
    backend = Tokenizer.from_str(tokenizer_json)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def encode_texts(backend: Tokenizer, texts: Sequence[str], dtype: str) -> EncodedBatch:
    """Cleans and encodes texts, without [CLS] and [SEP].

    Args:
        dtype: "<u2" or "<u4".
    """
    cleaned = [clean(text) for text in texts]
    encodings = backend.encode_batch_fast([one.text for one in cleaned], add_special_tokens=False)
    ids = [np.array(encoding.ids, dtype) for encoding in encodings]
    return EncodedBatch(
        b"".join(one.tobytes() for one in ids),
        np.array([len(one) for one in ids], "<i8").tobytes(),
        sum(len(one.text.encode()) for one in cleaned),
        sum(one.dropped_characters for one in cleaned),
        sum(one.invalid_bytes for one in cleaned),
    )


def send(stream: IO[bytes], message: Any) -> None:
    """Writes one message of plain values to a pipe."""
    content = marshal.dumps(message)
    stream.write(struct.pack("<Q", len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> object:
    """Reads one message from a pipe. Raises: EOFError: the other side is gone."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError("the other process ended")
    (size,) = struct.unpack("<Q", header)
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the other process ended")
    return marshal.loads(content)


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answers each batch of texts with its tokens, until the parent closes the pipe. First message: (json, dtype)."""
    first = receive(requests)
    assert isinstance(first, tuple)
    tokenizer_json, dtype = first
    backend = make_encoder(tokenizer_json)
    while True:
        try:
            texts = receive(requests)
        except EOFError:
            return
        assert isinstance(texts, list)
        send(replies, tuple(encode_texts(backend, texts, dtype)))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent closes the pipe
    serve(sys.stdin.buffer, sys.stdout.buffer)
