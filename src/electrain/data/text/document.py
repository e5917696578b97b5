"""The parcel that a corpus is read into."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        text: cleaned Unicode, never empty.
        source: the place that it was read from, for messages: `file.jsonl.gz:17`.
        continues: True if the next `Document` is a further piece of the same text. Only texts of more than 64 Ki
            characters come in pieces, so that a file larger than memory can be one document.
    """

    text: str
    source: str
    continues: bool = False
