"""The bodies of requests, as pydantic models made from the tasks; FastAPI checks them and describes them in OpenAPI."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

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


class FillOptions(ModelAsked):
    """The options of `fill`."""

    candidates: Annotated[int, Field(ge=1, le=100, description="Number of words to suggest for each [MASK].")] = 5
    by: Annotated[
        Literal["generator", "correction"] | None,
        Field(description="Network that fills; null takes the generator where there is one."),
    ] = None


class GenerateOptions(ModelAsked):
    """The options of `generate`."""

    tokens: Annotated[int, Field(ge=1, le=512, description="Number of tokens to write.")] = 40
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
    seed: Annotated[int, Field(ge=0, lt=2**53, description="Seed of the random draws.")] = 0


@dataclass(frozen=True)
class TaskForm:
    """What a task's route takes."""

    summary: str
    example: Input
    options: type[ModelAsked] = ModelAsked
    is_whole: bool = False  # True where the answer to an input depends on its number among the inputs


TASKS: dict[str, TaskForm] = {
    "detect": TaskForm("The probability that each token of a text was replaced.", "The cat sat on the moon."),
    "fill": TaskForm("Words for each [MASK].", "The capital of France is [MASK].", options=FillOptions),
    "embed": TaskForm("A vector for each text.", "A small cat."),
    "generate": TaskForm("Continuations of texts.", "Once upon a time", options=GenerateOptions, is_whole=True),
    "classify": TaskForm("A label with its probability.", "A film to remember."),
    "regress": TaskForm("A number for each text or pair.", "A film to remember."),
    "tag": TaskForm("A tag for each word.", "Marie Curie was born in Warsaw."),
    "answer": TaskForm(
        "The words of a text that answer a question.",
        {"question": "Where was Marie Curie born?", "context": "Marie Curie was born in Warsaw."},
    ),
    "summarize": TaskForm("A summary of each text.", "The council met on Monday. It voted for the new bridge."),
    "translate": TaskForm("A translation of each text.", "The house is small."),
}


PAIRED = ("classify", "regress")  # whose models may read two texts


class Refusal(BaseModel):
    """Why there is no answer, in one line."""

    error: str


class Answers(BaseModel):
    """The model that answered, and its answers in the order of the inputs."""

    model: str
    answers: list[dict[str, object]]


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
    reads_pairs: bool | None = None  # whether it classifies pairs of texts; None if either


class Models(BaseModel):
    """All models that the service holds."""

    models: list[Model]


class Runs(BaseModel):
    """The names of the runs."""

    runs: list[str]


def request_body(task: str, models: Mapping[str, bool | None], settings: ServeSettings) -> type[BaseModel]:
    """The body of a request for a task.

    Args: models: the models that can do it, by their names, with whether they read pairs; None if either.
    """
    names = tuple(models)
    # Types made from values, which a type checker cannot follow.
    kind: Any = _input(task, set(models.values()), settings.max_text_characters)
    name: Any = Literal[names] | None  # type: ignore[valid-type]
    body = create_model(
        f"{task.capitalize()}Request",
        __base__=TASKS[task].options,
        inputs=(
            list[kind],
            Field(min_length=1, max_length=settings.max_inputs, description="What the model is asked about."),
        ),
        model=(
            name,
            Field(None, description=f"Which model answers; null takes {names[0]}."),
        ),
    )
    example: Any = example_of(task, models[names[0]])
    body.model_config["json_schema_extra"] = {"examples": [{"inputs": [example]}]}
    return body


def example_of(task: str, reads_pairs: bool | None) -> Input:
    """An input that a model can be asked about."""
    example = TASKS[task].example
    return {"text": example, "pair": example} if task in PAIRED and reads_pairs else example


def _input(task: str, reads_pairs: set[bool | None], characters: int) -> object:
    """The kind of a task's inputs, with the limit on the length of their texts."""
    text = Annotated[str, Field(max_length=characters)]
    if task in PAIRED:
        one = create_model("TextInput", __base__=TextInput, text=(text, ...))
        two = create_model("PairInput", __base__=PairInput, text=(text, ...), pair=(text, ...))
        return two if reads_pairs == {True} else text | one if reads_pairs == {False} else text | one | two
    if task == "answer":
        return create_model("QuestionInput", __base__=QuestionInput, question=(text, ...), context=(text, ...))
    if task == "tag":
        words = Annotated[list[text], Field(max_length=characters)]  # type: ignore[valid-type]
        return text | create_model("WordsInput", __base__=WordsInput, words=(words, ...))
    return text
