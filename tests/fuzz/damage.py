"""Damaged copies of files, and the count of how reading them ends."""

import os
import random
from collections import Counter
from collections.abc import Callable

from electrain.foundation.errors import ElectrainError

# A few seconds in all for `make test`; docs/reliability.md says how many were tried.
CASES = int(os.environ.get("ELECTRAIN_FUZZ_CASES", "60"))
SEED = int(os.environ.get("ELECTRAIN_FUZZ_SEED", "0"))
# What stands at borders: of integers, of text, of the syntax of any of the formats.
_SPLICES = (
    b"\x00",
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\n\n",
    b"\t",
    b'"',
    b'""',
    b"{",
    b"[" * 500,
    b"}",
    b"]",
    b",",
    b":",
    b"9" * 400,
    b"1e999",
    b"-1",
    b"null",
    b"true",
    b"NaN",
    b"\x1b[2J",
    "\u2028\u202e\ufeff".encode(),
    b" " * 300,
)


def damaged(content: bytes, draws: random.Random) -> bytes:
    """A copy with one to four bits flipped, bytes replaced, parts cut out, doubled, exchanged or spliced in."""
    data = bytearray(content)
    for _ in range(draws.choice((1, 1, 1, 2, 4))):
        place, length = draws.randrange(len(data) + 1), draws.choice((1, 1, 2, 4, 8, 50))
        kind = draws.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << draws.randrange(8)
        elif kind == 1:
            data[place : place + length] = draws.randbytes(length)
        elif kind == 2:
            del data[place : place + draws.choice((length, len(data)))]
        elif kind == 3:
            data[place:place] = data[place : place + 10 * length]
        elif kind == 4:
            other = draws.randrange(len(data) + 1)
            data[place : place + length], data[other : other + length] = (
                data[other : other + length],
                data[place : place + length],
            )
        else:
            data[place : place + draws.choice((0, length))] = draws.choice(_SPLICES)
    return bytes(data)


def ends_of(read: Callable[[int], object], cases: range) -> None:
    """Requires that each case ends with a value or with one line. Anything else is the bug that is looked for."""
    ends: Counter[str] = Counter()
    read(0)  # which is not damaged
    for case in cases:
        try:
            read(case)
            ends["a value"] += 1
        except ElectrainError as error:
            ends["one line" if str(error) else "nothing said"] += 1
        except BaseException as error:
            raise AssertionError(f"case {case} of seed {SEED} ends in {type(error).__name__}: {error}") from error
    print(dict(ends))  # pytest shows it with -s
    assert set(ends) <= {"a value", "one line"}


def draws_of(name: str, case: int) -> random.Random:
    """The random numbers of a case, the same in every process."""
    return random.Random(f"{SEED} {name} {case}")
