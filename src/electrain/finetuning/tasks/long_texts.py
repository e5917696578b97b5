"""What is read of a text that is longer than a row: its beginning, its two ends, or all of it in windows."""

from collections.abc import Sequence
from typing import Literal

from electrain.data.tokenizer.windows import windows_of
from electrain.foundation.progress import counted

Cut = Literal["beginning", "ends", "windows"]
# What a cut leaves unread, for messages.
UNREAD: dict[Cut, str] = {
    "beginning": "only the beginning is read",
    "ends": "the middle is not read",
    "windows": "of the shorter text of each pair, only the beginning is read",
}
# Of rows of 512 tokens, 2 of them special, the first 128 and the last 382 tokens of a text were the best choice for
# long reviews; rows of other lengths have the same proportion. Source: Sun et al. 2019, section 5.3.1.
_HEAD_TOKENS, _ROW_TOKENS = 128, 510


def cut_notice(cut: int, count: int, longest: int, way: Cut = "beginning", what: str = "texts") -> str:
    """How many of some texts are too long to be read whole, and what is read of them; one line for a person.

    Args: longest: number of tokens that are read of one.
    """
    of_all = f"{cut:,} of {counted(count, what.removesuffix('s'))} {'is' if cut == 1 else 'are'}"
    return f"{of_all} longer than {counted(longest, 'token')}: {UNREAD[way]}"


def places_of_rows(
    texts: Sequence[int | None], longest: int, cut: Literal["ends", "windows"]
) -> tuple[list[list[int]], bool]:
    """The places of the tokens that each row of an encoded text or pair holds, and whether some are in no row.

    The longer text of a pair gives way first, and neither gets less than half of the room. Windows move over the longer
    text; each holds the beginning of the shorter one.

    Args:
        texts: for each token of the whole, without any cut, the number of its text, 0 or 1; None for special tokens,
            which every row holds.
        longest: maximum number of tokens in a row.
    """
    first, second = ([place for place, text in enumerate(texts) if text == number] for number in (0, 1))
    special = [place for place, text in enumerate(texts) if text is None]
    room = longest - len(special)
    if len(first) + len(second) <= room:
        return [list(range(len(texts)))], False
    shorter, longer = sorted((first, second), key=len)
    kept = min(len(shorter), room // 2)
    if cut == "windows":
        parts = [longer[window.start : window.end] for window in windows_of(0, len(longer), room - kept)]
        return [sorted([*special, *shorter[:kept], *part]) for part in parts], kept < len(shorter)
    return [sorted([*special, *_both_ends(shorter, kept), *_both_ends(longer, room - kept)])], True


def _both_ends(places: list[int], count: int) -> list[int]:
    """`count` of the places: about a quarter of them from the beginning, the others from the end."""
    if count >= len(places):
        return places
    head = count * _HEAD_TOKENS // _ROW_TOKENS
    return places[:head] + places[len(places) - (count - head) :]
