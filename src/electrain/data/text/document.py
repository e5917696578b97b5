"""What a corpus is read into."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        text: cleaned Unicode, never empty.
        source: where it was read, for messages: `file.jsonl.gz:17`.
        continues: True: the next `Document` is a further piece of this one. Only texts of more than 64 Ki characters
            come in pieces, so that a file larger than memory can be one document.
    """

    text: str
    source: str
    continues: bool = False
