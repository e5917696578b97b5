"""A predictor without a network that answers every task, for tests of the page: its answers follow from the text."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stand_in import Echo, Input

ALL_TASKS = ("detect", "fill", "embed", "generate", "classify", "regress", "tag", "answer", "summarize", "translate")
_NAMES = {"Ada": "PER", "Lovelace": "PER", "London": "LOC", "UNESCO": "ORG"}


@dataclass
class Pretender:
    """Its answers have the form of `electrain predict`. A word is "replaced" if it is odd: banana, kettle, 香."""

    tasks: tuple[str, ...] = ALL_TASKS
    reads_pairs: bool | None = None
    seconds: float = 0.0
    calls: list[tuple[str, list[Input], dict[str, object]]] = field(default_factory=list)

    def ask(self, task: str, inputs: Sequence[Input], **options: object) -> list[Echo]:
        self.calls.append((task, list(inputs), options))
        time.sleep(self.seconds)
        return [Echo(getattr(self, f"_{task}")(one, options)) for one in inputs]

    def _detect(self, text: str, options: Mapping[str, object]) -> dict[str, object]:
        tokens = []
        for found in re.finditer(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s]", text):
            word, start = found[0], found.start()
            chance = 0.93 if word.lower() in ("banana", "kettle", "香", "蕉") else (len(word) * 7 % 10) / 40
            pieces = [word] if len(word) < 9 else [word[:5], word[5:]]
            for number, piece in enumerate(pieces):
                end = start + len(piece)
                token = "##" * bool(number) + piece.lower()
                tokens.append({"token": token, "start": start, "end": end, "probability_replaced": chance})
                start = end
        return {"text": text, "tokens": tokens} if text.strip() else {"text": ""}

    def _fill(self, text: str, options: Mapping[str, object]) -> dict[str, object]:
        words = [("meal", 0.61), ("##s", 0.2), ("dinner", 0.1), ("<b>cake</b>", 0.05), ("soup", 0.03), ("pie", 0.0004)]
        candidates = [{"token": token, "probability": chance} for token, chance in words]
        masks = [
            {"start": one.start(), "end": one.end(), "candidates": candidates} for one in re.finditer(r"\[MASK\]", text)
        ]
        return {"text": text, "model": "generator", "masks": masks}

    def _embed(self, text: str, options: Mapping[str, object]) -> dict[str, object]:
        return {"text": text, "embedding": [1.0 + text.count(letter) for letter in "aeioulmnst"]}

    def _generate(self, text: str, options: Mapping[str, object]) -> dict[str, object]:
        written = f"a king who had {options.get('seed', 0)} daughters ."
        return {"text": text, "written": written, "tokens": written.split()}

    def _classify(self, given: Input, options: Mapping[str, object]) -> dict[str, object]:
        texts = given if isinstance(given, dict) else {"text": given}
        chance = 0.934 if "warm" in str(texts["text"]) else 0.21
        return {
            **texts,
            "label": "positive" if chance > 0.5 else "negative",
            "probability": max(chance, 1 - chance),
            "probabilities": {"negative": 1 - chance, "positive": chance},
        }

    def _regress(self, given: Input, options: Mapping[str, object]) -> dict[str, object]:
        return {**(given if isinstance(given, dict) else {"text": given}), "value": 3.8214}

    def _tag(self, given: Input, options: Mapping[str, object]) -> dict[str, object]:
        text = given if isinstance(given, str) else " ".join(map(str, given["words"]))
        words = re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s]", text)
        tags = [f"B-{_NAMES[word]}" if word in _NAMES else "O" for word in words]
        entities: list[dict[str, object]] = []
        for place, word in enumerate(words):
            kind = _NAMES.get(word)
            if kind and entities and entities[-1]["last_word"] == place - 1 and entities[-1]["type"] == kind:
                entities[-1] |= {"last_word": place, "text": f"{entities[-1]['text']} {word}"}
            elif kind:
                entities.append({"type": kind, "text": word, "first_word": place, "last_word": place})
        return {"words": words, "tags": tags, "entities": entities}

    def _answer(self, given: Input, options: Mapping[str, object]) -> dict[str, object]:
        assert isinstance(given, dict)
        context = str(given["context"])
        start = context.find("Robert Stevenson")
        if start < 0:
            best = {"answer": context[:8], "score": 0.04, "start": 0, "end": 8}
            none = {"answer": None, "score": 0.9, "start": None, "end": None, "null_probability": 0.9}
            return {"id": "1", **none, "null_score_difference": 2.0, "best_span": best}
        return {"id": "1", "answer": "Robert Stevenson", "score": 0.871, "start": start, "end": start + 16}

    def _summarize(self, text: str, options: Mapping[str, object]) -> dict[str, object]:
        return {"text": text, "output": " ".join(text.split()[:6])}

    def _translate(self, text: str, options: Mapping[str, object]) -> dict[str, object]:
        return {"text": text, "output": "我在看书。"}
