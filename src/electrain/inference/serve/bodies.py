"""The bodies of requests, as pydantic models made from the tasks; FastAPI checks them and describes them in OpenAPI."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from electrain.inference.answers import (
    ANSWER_OF_TASK,
    Answer,
    Candidate,
    ClassifiedText,
    DetectedText,
    Embedding,
    Entity,
    FilledMask,
    FilledText,
    FoundAnswer,
    JudgedToken,
    RegressedText,
    TaggedText,
    WrittenOutput,
    WrittenText,
)
from electrain.inference.serve.batching import Input
from electrain.inference.serve.settings import ServeSettings

_STRICT = ConfigDict(extra="forbid", strict=True)


class TextInput(BaseModel):
    """A text."""

    model_config = _STRICT
    text: str


class PairInput(BaseModel):
    """The two texts that a model of pairs reads."""

    model_config = _STRICT
    text: str
    pair: str


class QuestionInput(BaseModel):
    """A question, and the text in which its answer is looked for."""

    model_config = _STRICT
    question: str
    context: str


class WordsInput(BaseModel):
    """A text that is cut into words already."""

    model_config = _STRICT
    words: list[str]


class ModelAsked(BaseModel):
    """What every request may say."""

    model_config = _STRICT


def _whole(value: object) -> object:
    """JSON has one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class FillOptions(ModelAsked):
    """The options of `fill`."""

    candidates: Annotated[
        int, Field(ge=1, le=100, description="Number of words to suggest for each [MASK]."), BeforeValidator(_whole)
    ] = 5


class GenerateOptions(ModelAsked):
    """The options of `generate`."""

    tokens: Annotated[int, Field(ge=1, le=512, description="Number of tokens to write."), BeforeValidator(_whole)] = 40
    temperature: Annotated[
        float, Field(ge=0.01, le=100, allow_inf_nan=False, description="Lower values favour likely tokens.")
    ] = 1.0
    top_p: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            allow_inf_nan=False,
            description="Sample from the likeliest tokens that sum to this probability.",
        ),
    ] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**53, description="Seed of the random draws."), BeforeValidator(_whole)] = 0


@dataclass(frozen=True)
class TaskForm:
    """What a task's route takes, and an example."""

    summary: str
    example: Input
    answer: Answer  # to the example
    options: type[ModelAsked] = ModelAsked
    is_whole: bool = False  # True where the answer to an input depends on its number among the inputs


TASKS: dict[str, TaskForm] = {
    "detect": TaskForm(
        "The probability that each token of a text was replaced.",
        "The moon sat.",
        DetectedText(
            "The moon sat.",
            (
                JudgedToken("the", 0, 3, 0.02),
                JudgedToken("moon", 4, 8, 0.91),
                JudgedToken("sat", 9, 12, 0.12),
                JudgedToken(".", 12, 13, 0.01),
            ),
        ),
    ),
    "fill": TaskForm(
        "Words for each gap.",
        "The capital of France is [MASK].",
        FilledText(
            "The capital of France is [MASK].", "run/generator", (FilledMask(25, 31, (Candidate("paris", 0.8),)),)
        ),
        FillOptions,
    ),
    "embed": TaskForm("A vector for each text.", "A small cat.", Embedding("A small cat.", (0.25, -0.5, 0.125))),
    "generate": TaskForm(
        "Continuations of texts.",
        "Once upon a",
        WrittenText("Once upon a", "time there", ("time", "there")),
        GenerateOptions,
        is_whole=True,
    ),
    "classify": TaskForm(
        "A label with its probability.",
        "A film to remember.",
        ClassifiedText("A film to remember.", None, "positive", 0.9, probabilities={"negative": 0.1, "positive": 0.9}),
    ),
    "regress": TaskForm(
        "A number for each text or pair.", "A film to remember.", RegressedText("A film to remember.", None, 4.5)
    ),
    "tag": TaskForm(
        "A tag for each word.",
        "Marie Curie smiled",
        TaggedText(
            ("Marie", "Curie", "smiled"),
            ("B-PER", "I-PER", "O"),
            (0.9, 0.9, 0.9),
            (Entity("PER", "Marie Curie", 0, 1),),
        ),
    ),
    "answer": TaskForm(
        "The words of a text that answer a question.",
        {"question": "Where was Marie Curie born?", "context": "Marie Curie was born in Warsaw."},
        FoundAnswer("1", "Warsaw", 0.9, 24, 30),
    ),
    "summarize": TaskForm(
        "A summary of each text.",
        "The council met on Monday. It voted for the new bridge.",
        WrittenOutput("The council met on Monday. It voted for the new bridge.", "Council votes for bridge"),
    ),
    "translate": TaskForm(
        "A translation of each text.",
        "The house is small.",
        WrittenOutput("The house is small.", "Das Haus ist klein."),
    ),
}


@dataclass(frozen=True)
class Facts:
    """What a model takes."""

    reads_pairs: bool | None = None  # None: one text or two
    gap: str = "[MASK]"  # what `fill` fills
    fillers: tuple[str, ...] = ()  # the networks that can be chosen for it


GAPS = ("[MASK]", "<mask>")  # BERT's and RoBERTa's
PAIRED = ("classify", "regress")  # whose models may read two texts


class Refusal(BaseModel):
    """Why there is no answer, in one line."""

    error: str


class Health(BaseModel):
    """Whether the service can answer: ready, loading or failed, and which model is which."""

    status: Literal["ready", "loading", "failed"]
    models: dict[str, Literal["ready", "loading", "failed"]] = {}


class Alive(BaseModel):
    """That the process answers at all."""

    status: Literal["live"]


class Model(BaseModel):
    """A model that the service holds."""

    name: str
    tasks: list[str]
    reads_pairs: bool | None  # null: one text or two
    gap: str  # what `fill` fills


class Models(BaseModel):
    """All models that the service holds."""

    models: list[Model]


class Runs(BaseModel):
    """The names of the runs."""

    runs: list[str]


def request_body(task: str, models: Mapping[str, Facts], settings: ServeSettings) -> type[BaseModel]:
    """The body of a request for a task.

    Args: models: the models that can do it, by their names.
    """
    names, facts = tuple(models), tuple(models.values())
    # Types made from values, which a type checker cannot follow.
    kind: Any = _input(task, facts, settings.max_text_characters)
    name: Any = Literal[names] | None  # type: ignore[valid-type]
    fillers = tuple(dict.fromkeys(name for one in facts for name in one.fillers))
    by: Any = Literal[fillers] | None if fillers else None  # type: ignore[valid-type]
    text = "Network that fills; null takes the generator where there is one."
    more: Any = {"by": (by, Field(None, description=text))} if task == "fill" else {}
    body = create_model(
        f"{task.capitalize()}Request",
        __base__=TASKS[task].options,
        **more,
        inputs=(
            list[kind],
            Field(min_length=1, max_length=settings.max_inputs, description="What the model is asked about."),
        ),
        model=(
            name,
            Field(None, description=f"Which model answers; null takes {names[0]}."),
        ),
    )
    example: Any = example_of(task, facts[0])
    body.model_config["json_schema_extra"] = {"examples": [{"inputs": [example]}]}
    return body


def answers_body(task: str) -> type[BaseModel]:
    """The body of the answer to a request for a task."""
    kind: Any = ANSWER_OF_TASK[task]
    return create_model(
        f"{task.capitalize()}Answers",
        model=(str, Field(description="The model that answered.")),
        answers=(
            list[kind],
            Field(description="In the order of the inputs; a blank text is answered by it alone."),
        ),
    )


def example_of(task: str, facts: Facts) -> Input:
    """An input that a model can be asked about."""
    example = TASKS[task].example
    if task == "fill":
        return str(example).replace(GAPS[0], facts.gap)
    return {"text": example, "pair": example} if task in PAIRED and facts.reads_pairs else example


def _input(task: str, facts: Sequence[Facts], characters: int) -> object:
    """The kind of a task's inputs, with the limit on the length of their texts."""
    text = Annotated[str, Field(max_length=characters)]
    if task == "fill":
        gaps = "|".join(dict.fromkeys(re.escape(one.gap) for one in facts))
        what = "A text with a gap, or a blank one."
        return Annotated[str, Field(max_length=characters, pattern=rf"{gaps}|^\s*$", description=what)]
    if task in PAIRED:
        reads_pairs = {one.reads_pairs for one in facts}
        one = create_model("TextInput", __base__=TextInput, text=(text, ...))
        two = create_model("PairInput", __base__=PairInput, text=(text, ...), pair=(text, ...))
        return two if reads_pairs == {True} else text | one if reads_pairs == {False} else text | one | two
    if task == "answer":
        return create_model("QuestionInput", __base__=QuestionInput, question=(text, ...), context=(text, ...))
    if task == "tag":
        words = Annotated[list[text], Field(max_length=characters)]  # type: ignore[valid-type]
        return text | create_model("WordsInput", __base__=WordsInput, words=(words, ...))
    return text
