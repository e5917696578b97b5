"""What a model folder itself tells for its card: its size, its length, its tokenizer, and how it is opened."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import transformers
from safetensors import safe_open

# The class of transformers that opens an architecture, by the end of its name.
_CLASSES = {
    "ForPreTraining": "AutoModelForPreTraining",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "EncoderDecoderModel": "EncoderDecoderModel",
}
MILLION = 1_000_000


@dataclass(frozen=True)
class FolderFacts:
    """What is read from a model folder.

    Attributes:
        architecture: the class that saved the folder.
        opened_by: the class of transformers that opens the folder.
        is_known: False where only electrain knows the network.
        parameters: number of weights, tied ones counted once.
        longest_tokens: tokens of a text that are read, special ones counted.
        vocabulary_size: number of tokens that the tokenizer knows.
        lower_cases, strips_accents: what becomes of a text before it is split.
        sentence_transformers: True if SentenceTransformer opens the folder.
    """

    architecture: str
    opened_by: str
    is_known: bool
    parameters: int
    longest_tokens: int
    vocabulary_size: int
    lower_cases: bool
    strips_accents: bool
    sentence_transformers: bool

    @property
    def size(self) -> str:
        """The number of parameters in words, for example "13.5 million parameters"."""
        if self.parameters < MILLION:
            return f"{self.parameters:,} parameters"
        return f"{self.parameters / MILLION:,.{1 if self.parameters < 100 * MILLION else 0}f} million parameters"


def facts_of_folder(folder: Path) -> FolderFacts:
    """Reads the configuration, the sizes of the weights and the tokenizer of a model folder that electrain wrote."""
    configuration = json.loads((folder / "config.json").read_text("utf-8"))
    architecture = str((configuration.get("architectures") or [""])[0])
    parameters = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        parameters += sum(map(math.prod, shapes))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    shown = tokenizer.normalizer.normalize_str("Éa") if tokenizer.normalizer else "Éa"
    return FolderFacts(
        architecture,
        next((name for ending, name in _CLASSES.items() if architecture.endswith(ending)), "AutoModel"),
        hasattr(transformers, architecture),
        parameters,
        min(int(settings.get("model_max_length") or 512), 1_000_000),
        tokenizer.get_vocab_size(),
        shown != shown.upper() and shown[0] in "ée",
        shown[0] in "Ee",
        (folder / "modules.json").is_file(),
    )


def text_limits(facts: FolderFacts) -> list[str]:
    """What becomes of texts before the network reads them, as points of a list."""
    lines = [f"- A text is read up to {facts.longest_tokens:,} tokens; the tokenizer's `truncation` cuts the rest."]
    if facts.lower_cases:
        lost = " and accents are removed" if facts.strips_accents else "; accents are kept"
        lines.append(f"- Text is lower-cased{lost}, so that the model cannot tell such spellings apart.")
    else:
        lines.append("- Capital letters count: text written in another case than the training texts is read worse.")
    return lines


def opening(facts: FolderFacts, more: list[str]) -> list[str]:
    """Python that opens the folder with transformers alone, then the further lines, as a block of code."""
    opened_by = facts.opened_by if facts.is_known else facts.architecture
    imports = [f"from transformers import {facts.opened_by}, AutoTokenizer"]
    if not facts.is_known:
        imports = [
            "from transformers import AutoTokenizer",
            "",
            f"from electrain.models.recurrent import {facts.architecture}",
        ]
    lines = [
        *imports,
        "",
        'folder = "."  # this folder, or its name on the hub',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {opened_by}.from_pretrained(folder)",
        *more,
    ]
    return ["```python", *lines, "```"]


def sentence_embeddings(facts: FolderFacts) -> list[str]:
    """How SentenceTransformer opens the folder; empty if it does not."""
    if not facts.sentence_transformers:
        return []
    return [
        "",
        "With sentence-transformers, which averages the states of all tokens:",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'vectors = SentenceTransformer(".").encode(["a text", "another text"])',
        "```",
    ]
