"""What becomes of the letters of a text before it is cut: case, accents, dotted and dotless i, invisible joiners.

All of it is in the tokenizer's own normaliser, so that it travels with the folder, whatever program opens it.
"""

from dataclasses import dataclass
from typing import Literal

from tokenizers import Regex, Tokenizer, normalizers

from electrain.foundation.errors import ConfigurationError

Language = Literal["tr", "az"]
# The characters that `clean` drops, but for U+200C and U+200D. This pattern also marks a tokenizer that keeps them.
_ALL_BUT_JOINERS = r"[\p{Cc}\p{Cf}\p{Cs}\x{FFFD}&&[^\t\n\r\x{200C}\x{200D}]]"


@dataclass(frozen=True)
class Letters:
    """How the letters of a text are read.

    Attributes:
        cased: keep capital letters and accents.
        keeps_accents: lower-case, and keep accents.
        language: lower-case as this language does, and keep its accents; Turkish and Azerbaijani have I for ı, İ for i.
        keeps_joiners: keep the zero-width non-joiner (U+200C), which parts the halves of Persian words and decides
            between forms of Indian letters, and the joiner (U+200D), which also makes one emoji of several.
    """

    cased: bool = False
    keeps_accents: bool = False
    language: Language | None = None
    keeps_joiners: bool = False

    def __post_init__(self) -> None:
        if self.cased and self.language:
            raise ConfigurationError(
                f"--language {self.language}: says how to lower-case, which --cased does not do; leave one out"
            )

    def normalizer(self) -> normalizers.Normalizer:
        """The normaliser that does it; without any option it is BERT's."""
        strips = not (self.cased or self.keeps_accents or self.language)
        steps: list[normalizers.Normalizer] = []
        if self.keeps_joiners:
            steps.append(normalizers.Replace(Regex(_ALL_BUT_JOINERS), ""))
        if self.language or (self.keeps_accents and not self.cased):
            # A letter and its accent may come as two characters, as from macOS, and must not become another word.
            steps.append(normalizers.NFC())
        if self.language:
            # Source: Unicode, SpecialCasing.txt, "tr" and "az". An i with U+0307 is what the general rule makes of İ.
            steps += [
                normalizers.Replace(Regex("\u0130|i\u0307"), "i"),
                normalizers.Replace("I", "\u0131"),
            ]
        steps.append(
            normalizers.BertNormalizer(
                clean_text=not self.keeps_joiners,
                handle_chinese_chars=True,
                strip_accents=strips,
                lowercase=not self.cased,
            )
        )
        return steps[0] if len(steps) == 1 else normalizers.Sequence(steps)


def keeps_joiners(tokenizer: Tokenizer) -> bool:
    """True for a tokenizer that was made with `Letters.keeps_joiners`."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.Sequence):
        return False
    return isinstance(normalizer[0], normalizers.Replace) and b"200C" in normalizer[0].__getstate__()
