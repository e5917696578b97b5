"""The schemes in which tags mark chunks of words, such as names: found out, checked, converted, read.

    scheme   Ada    Lovelace  in  London
    BIO      B-PER  I-PER     O   B-LOC     also called IOB2
    IOB1     I-PER  I-PER     O   I-LOC     B- only between two chunks of one kind
    BIOES    B-PER  E-PER     O   S-LOC     also called IOBES
    BILOU    B-PER  L-PER     O   U-LOC
    BMES     B-PER  E-PER     O   S-LOC     M- inside
    BMEWO    B-PER  E-PER     O   W-LOC     M- inside

Source: Ramshaw and Marcus 1995 (IOB1); Tjong Kim Sang and Veenstra 1999 (IOB2); Ratinov and Roth 2009 (BILOU).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

OUTSIDE = "O"
_CHUNK_TAG, _BARE_TAG = re.compile("[BIESLUMW]-.+", re.DOTALL), re.compile("[BIESLUMW]")
# "none": tags that mark no chunks, such as parts of speech.
SchemeName = Literal["none", "bio", "iob1", "bioes", "bilou", "bmes", "bmewo"]
PLAIN: SchemeName = "none"


class Scheme(NamedTuple):
    """The letters with which a scheme begins its tags; "" where it has none."""

    begin: str
    inside: str
    end: str = ""
    single: str = ""


# In the order in which they are tried: the first that fits is taken.
SCHEMES: dict[SchemeName, Scheme] = {
    "bio": Scheme("B", "I"),
    "bioes": Scheme("B", "I", "E", "S"),
    "bilou": Scheme("B", "I", "L", "U"),
    "bmes": Scheme("B", "M", "E", "S"),
    "bmewo": Scheme("B", "M", "E", "W"),
    "iob1": Scheme("B", "I"),
}
# Other names of the same.
ALIASES: dict[str, SchemeName] = {"iob2": "bio", "iobes": "bioes"}


class Chunk(NamedTuple):
    """Some words in a row that belong together."""

    kind: str
    first: int  # number of its first word in the sentence, from 0
    last: int


class Fault(NamedTuple):
    """A tag that its scheme does not allow there."""

    word: int  # number of the word in the sentence, from 0
    reason: str


def is_chunk_tag(tag: str, *, has_kind: bool = True) -> bool:
    """True for a tag that could begin, go on with or end a chunk in some scheme.

    Args: has_kind: False for tags of a letter alone, as in the segmentation of Chinese into words.
    """
    return (_CHUNK_TAG if has_kind else _BARE_TAG).fullmatch(tag) is not None


def have_kinds(tags: Iterable[str]) -> bool:
    """False where tags are letters alone, of which one begins chunks and another goes on with them: B, M, E, S."""
    letters = set()
    for tag in tags:
        if is_chunk_tag(tag):
            return True
        letters |= {tag} & set("BIMEL")
    return not ("B" in letters and len(letters) > 1)


def scheme_of_labels(labels: Collection[str]) -> SchemeName:
    """The scheme of a model's tags; "none" where a tag belongs to no scheme, or all are O.

    The tags alone do not tell IOB1 from BIO, and need not: chunks are read from both in the same way.
    """
    chunks, has_kind = [label for label in labels if label != OUTSIDE], have_kinds(labels)
    if not chunks or not all(is_chunk_tag(label, has_kind=has_kind) for label in chunks):
        return PLAIN
    letters = {label[0] for label in chunks}
    return next((name for name, scheme in SCHEMES.items() if letters <= set(scheme)), PLAIN)


def faults(tags: Sequence[str], name: SchemeName, *, has_kind: bool = True) -> Iterator[Fault]:
    """The faults of a sentence's tags in a scheme, in order. Args: has_kind: see `is_chunk_tag`."""
    scheme = SCHEMES[name]
    opened: str | None = None  # the kind of the chunk that is not ended
    for place, tag in enumerate(tags):
        letter, kind = tag[:1], tag[2:]
        before = tags[place - 1] if place else "the beginning of the sentence"
        is_known = tag == OUTSIDE or (is_chunk_tag(tag, has_kind=has_kind) and letter in scheme)
        goes_on = is_known and tag != OUTSIDE and letter in (scheme.inside, scheme.end)
        if scheme.end and opened is not None and is_known and not (goes_on and kind == opened):
            yield Fault(place - 1, f"it must be followed by {_ways_on(scheme, opened)}, not {tag}")
        if not is_known:
            yield Fault(place, f"the other tags are {name.upper()}; fix it")
        elif name == "iob1" and letter == "B" and opened != kind:
            yield Fault(place, f"in IOB1 it must follow {_tag('B', kind)} or {_tag('I', kind)}, not {before}")
        elif name != "iob1" and goes_on and opened != kind:
            yield Fault(place, f"it must follow {_tag('B', kind)} or {_tag(scheme.inside, kind)}, not {before}")
        stays_open = is_known and tag != OUTSIDE and letter in (scheme.begin, scheme.inside)
        opened = kind if stays_open else None
    if scheme.end and opened is not None:
        yield Fault(len(tags) - 1, f"it must be followed by {_ways_on(scheme, opened)}, not the end of the sentence")


def _ways_on(scheme: Scheme, kind: str) -> str:
    return f"{_tag(scheme.inside, kind)} or {_tag(scheme.end, kind)}"


def _tag(letter: str, kind: str) -> str:
    return f"{letter}-{kind}" if kind else letter


def chunks_of_tags(tags: Sequence[str], name: SchemeName) -> list[Chunk]:
    """The chunks that the tags of a sentence mark, as they are scored.

    In BIO and IOB1 as conlleval reads them: a chunk may also begin with I-. In the schemes that also mark the end, only
    whole chunks count, from their beginning to their end, as in seqeval's strict mode.
    Source: Tjong Kim Sang and De Meulder 2003; seqeval.
    """
    return _lenient_chunks(tags) if name in ("bio", "iob1") else _whole_chunks(tags, SCHEMES[name])


def _lenient_chunks(tags: Sequence[str]) -> list[Chunk]:
    chunks: list[Chunk] = []
    is_open = False
    for place, tag in enumerate(tags):
        letter, _, kind = tag.partition("-")
        if tag != OUTSIDE and is_open and letter in ("I", "E") and chunks[-1].kind == kind:
            chunks[-1] = chunks[-1]._replace(last=place)
        elif tag != OUTSIDE:
            chunks.append(Chunk(kind, place, place))
        is_open = tag != OUTSIDE and letter not in ("E", "S")
    return chunks


def _whole_chunks(tags: Sequence[str], scheme: Scheme) -> list[Chunk]:
    chunks: list[Chunk] = []
    begun: Chunk | None = None
    for place, tag in enumerate(tags):
        letter, _, kind = tag.partition("-")
        if letter == scheme.single:
            chunks.append(Chunk(kind, place, place))
            begun = None
        elif letter == scheme.begin:
            begun = Chunk(kind, place, place)
        elif begun is not None and kind == begun.kind and letter in (scheme.inside, scheme.end):
            if letter == scheme.end:
                chunks.append(begun._replace(last=place))
                begun = None
        else:
            begun = None
    return chunks


def tags_of_chunks(chunks: Sequence[Chunk], length: int, name: SchemeName) -> tuple[str, ...]:
    """The tags of a sentence of `length` words with these chunks, which are in order and apart."""
    scheme = SCHEMES[name]
    tags = [OUTSIDE] * length
    before: Chunk | None = None
    for chunk in chunks:
        begin = scheme.begin
        if name == "iob1" and not (before and before.kind == chunk.kind and before.last == chunk.first - 1):
            begin = scheme.inside
        for place in range(chunk.first, chunk.last + 1):
            letter = begin if place == chunk.first else scheme.inside
            if scheme.end and place == chunk.last:
                letter = scheme.single if place == chunk.first else scheme.end
            tags[place] = _tag(letter, chunk.kind)
        before = chunk
    return tuple(tags)


def every_tag(kinds: Collection[str], name: SchemeName) -> list[str]:
    """All tags that a scheme has for chunks of these kinds, and O."""
    return [OUTSIDE, *(_tag(letter, kind) for kind in sorted(kinds) for letter in SCHEMES[name] if letter)]


def in_seqevals_letters(tags: Sequence[str], name: SchemeName) -> list[str]:
    """The tags in the letters of BIOES, which seqeval calls IOBES; those of BIO and IOB1 are its own already."""
    scheme = SCHEMES[name]
    if not scheme.end:
        return list(tags)
    letters = dict(zip(scheme, SCHEMES["bioes"], strict=True))
    return [tag if tag == OUTSIDE else letters[tag[0]] + tag[1:] for tag in tags]
