"""Guesses the encoding of text that is not UTF-8, and names the command that converts it.

Why not a library: charset-normalizer and chardet are no dependencies of ours, and both guess short tables badly.
"""

import codecs
import re
import shlex
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from electrain.data.text.compression import COMPRESSIONS, open_stream

# Bytes that are looked at: enough of any language, and read in no time.
SAMPLE_BYTES = 1 << 16
# Characters that may stand in any language, as spreadsheets and word processors write them.
_MARKS = set(
    "\u201c\u201d\u201e\u201a\u2018\u2019\u2013\u2014\u2026\u20ac\xa0\xa7\xb0\xab\xbb\xb7\u2022\u2122\xa9\xae\xba\xaa"
)
_WESTERN = "äöüßéèêëàâáãåæçñíìîïóòôøúùœ¿¡"
_CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžäöüßőűăâîşţľĺŕô"
_TURKISH = "çğıöşüâîû"
_BALTIC = "āčēģīķļņšūžąęėįųõäöü"
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґў"
_GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ"
_HEBREW = "".join(map(chr, range(0x5D0, 0x5EB)))
_ARABIC = "".join(map(chr, range(0x621, 0x653))) + "پچژگکی،؟"
_THAI = "".join(map(chr, [*range(0xE01, 0xE3B), *range(0xE40, 0xE4D)]))
# Letters of everyday words that no other language of the same bytes has as often.
_OFTEN = {
    "GB18030": "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年好很店没买",
    "BIG5": "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年好很店沒買服務",
    "EUC-JP": "のにはをたがでてとしれさいあるもなかこらっすりまくけきどんよつせうわえみそちおめろほひだ",
    "CP949": "이다는을가에의한고은도를하로지서사인어기나그있아리들자수게과해보시일정것라대만",
}
_OFTEN["CP932"] = _OFTEN["EUC-JP"]
_OPENING = set("¿¡")
_APOSTROPHES = "\u2019·"
_MISPLACED = re.compile("(?:^|[^ก-ฮัิ-ฺ็-์])[ัิ-ฺ็-์]")  # a Thai vowel or tone that follows no consonant
_MIXED = 0.1  # share of lines that are UTF-8; short lines of a code page are so by chance (in GB18030, 联通 is)
_INVALID = re.compile("[\udc80-\udcff]")
_LEAST_SCORE = 0.7  # share of the letters that must be plausible


class _Candidate(NamedTuple):
    name: str  # as iconv and Python both know it
    score: Callable[[str], float]  # share of the characters outside ASCII that are plausible where they stand


def _latin(alphabet: str) -> Callable[[str], float]:
    """Languages in Latin letters: accents stand alone between letters of ASCII, seldom more than three together."""
    letters = set(alphabet + alphabet.upper()) - _OPENING

    def is_plausible(text: str, place: int) -> bool:
        one, before, after = text[place], text[place - 1 : place], text[place + 1 : place + 2]
        if one in _MARKS or one in _OPENING:
            return one in _APOSTROPHES or not (before.isalpha() and after.isalpha())
        return one in letters and not (one.isupper() and before.islower())

    def score(text: str) -> float:
        places = [(run, place) for run in re.finditer(r"[^\x00-\x7f]+", text) for place in range(*run.span())]
        good = (len(run[0].strip("".join(_MARKS))) <= 3 and is_plausible(text, place) for run, place in places)
        return sum(good) / len(places) if places else 0.0

    return score


def _script(alphabet: str, often: str) -> Callable[[str], float]:
    """Scripts of their own: whole words of it, with capital letters only at their beginnings or throughout.

    Args: often: the ten commonest letters, more than half of any text.
    """
    letters = set(alphabet + alphabet.upper())

    def score(text: str) -> float:
        good = common = total = 0
        for word in re.findall(r"[^\x00-\x40\x5b-\x60\x7b-\x7f]+|[A-Za-z]+", text):
            outside = [one for one in word if not one.isascii() and one not in _MARKS]
            is_mixed = len(outside) < len(word.strip("".join(_MARKS)))
            is_cased = word[1:] != word[1:].lower() and word != word.upper()
            total += len(outside)
            if not is_mixed and not is_cased and not _MISPLACED.search(word):
                good += sum(one in letters for one in outside)
                common += sum(one.lower() in often for one in outside)
        return (0.8 * good + 0.2 * min(common / 0.6, good)) / total if total else 0.0

    return score


def _ideographs(name: str, first: int, last: int) -> Callable[[str], float]:
    """East Asian text: characters of the standard's first level, by the leading byte, some of them frequent ones."""
    often = set(_OFTEN[name])

    def score(text: str) -> float:
        outside = [one for one in text if not one.isascii()]
        words = [one for one in outside if one.isalpha()]
        if not words or 2 * len(words) < len(outside):
            return 0.0
        common = sum(one in often or first <= _leading_byte(one, name) <= last for one in words) / len(words)
        frequent = sum(one in often for one in words) / len(words)
        return 0.75 * common + min(frequent, 0.25)

    return score


def _leading_byte(character: str, name: str) -> int:
    try:
        return character.encode(name)[0]
    except UnicodeEncodeError:
        return 0


# In order of how often people bring them, which decides between equal scores.
_CANDIDATES = (
    _Candidate("CP1252", _latin(_WESTERN)),
    _Candidate("GB18030", _ideographs("GB18030", 0xB0, 0xD7)),
    _Candidate("CP1251", _script(_CYRILLIC, "оеаинтсрвл")),
    _Candidate("CP1250", _latin(_CENTRAL)),
    _Candidate("CP932", _ideographs("CP932", 0x88, 0x97)),
    _Candidate("BIG5", _ideographs("BIG5", 0xA4, 0xC6)),
    _Candidate("CP949", _ideographs("CP949", 0xB0, 0xC8)),
    _Candidate("EUC-JP", _ideographs("EUC-JP", 0xB0, 0xCF)),
    _Candidate("CP1254", _latin(_TURKISH)),
    _Candidate("ISO-8859-2", _latin(_CENTRAL)),
    _Candidate("CP1253", _script(_GREEK, "αοιετσνηρυ")),
    _Candidate("CP1256", _script(_ARABIC, "اليمنرتوبة")),
    _Candidate("CP1255", _script(_HEBREW, "יוהלאמרבתש")),
    _Candidate("CP874", _script(_THAI, "านรกอเงลีม")),
    _Candidate("KOI8-R", _script(_CYRILLIC, "оеаинтсрвл")),
    _Candidate("CP866", _script(_CYRILLIC, "оеаинтсрвл")),
    _Candidate("ISO-8859-5", _script(_CYRILLIC, "оеаинтсрвл")),
    _Candidate("CP1257", _latin(_BALTIC)),
    _Candidate("MACINTOSH", _latin(_WESTERN)),
    _Candidate("CP850", _latin(_WESTERN)),
)


def likely_encoding(sample: bytes) -> str | None:
    """The encoding in which `sample` reads most plausibly, by its name for iconv.

    An encoding must decode every byte, and the characters outside ASCII must be ones that some language has there.

    Returns: None for UTF-8 (with faults or without), for binary data, and where nothing is plausible.
    """
    wide = _wide(sample)
    if wide:
        return wide
    decoded = sample.decode("utf-8", "surrogateescape")
    invalid = len(_INVALID.findall(decoded))
    if 2 * invalid <= sum(not one.isascii() for one in decoded):  # more that is UTF-8 than not
        return None
    # The sample may end within a character.
    scores = {one.name: score for one in _CANDIDATES if (score := _score(one, sample)) >= _LEAST_SCORE}
    return max(scores, key=scores.__getitem__, default=None)


def _is_utf8(content: bytes) -> bool:
    """True if every byte belongs to a character."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(1)  # a file may have many such lines
def conversion(path: Path) -> str:
    """The end of a message about a file that is not UTF-8: the command that converts it, with the likely encoding."""
    sample = not_ascii(path)
    lines = [] if b"\0" in sample else [line for line in sample.split(b"\n") if not line.isascii()]
    others = [line for line in lines if not _is_utf8(line)]
    if len(lines) - len(others) > _MIXED * len(lines):
        guess = likely_encoding(b"\n".join(others))
        looks = f" (they look like {guess})" if guess else ""
        return f"its other lines are UTF-8 and would be spoiled by iconv; convert only those that are not{looks}"
    guess = likely_encoding(sample)
    tools = dict(zip(COMPRESSIONS, ("gzip", "xz", "bzip2", "zstd"), strict=True))
    tool, name = tools.get(path.suffix.lower()), shlex.quote(str(path))
    new = shlex.quote(str(path.with_name(f"utf8-{path.name}")))
    iconv = f"iconv -f {guess or 'ENCODING'} -t UTF-8"
    command = f"{tool} -cd {name} | {iconv} | {tool} > {new}" if tool else f"{iconv} {name} > {new}"
    if guess:
        return f"it looks like {guess}; convert it with `{command}`"
    return f"convert it with `{command}`, or fix these bytes"


def not_ascii(path: Path) -> bytes:
    """Lines of the file that are not all ASCII, up to SAMPLE_BYTES in all; its beginning where it has no lines."""
    found = b""
    with open_stream(path) as stream:
        head = stream.read(SAMPLE_BYTES)
        if b"\0" in head:
            return head
        block = head
        while block and len(found) < SAMPLE_BYTES:
            found += b"\n".join(line for line in block.split(b"\n") if not line.isascii()) + b"\n"
            block = stream.read(SAMPLE_BYTES) + stream.readline(SAMPLE_BYTES)
    return found[:SAMPLE_BYTES]


def _wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32, known by a byte order mark, or by the zeros of its ASCII characters."""
    for mark, name in ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32")):
        if sample.startswith(mark):
            return name
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) > 0.2 * len(sample) / 2 and min(even, odd) < 0.02 * len(sample):
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return None


def _score(candidate: _Candidate, sample: bytes) -> float:
    try:
        text = codecs.getincrementaldecoder(candidate.name)().decode(sample)
    except (UnicodeDecodeError, LookupError):
        return 0.0
    return candidate.score(text)
