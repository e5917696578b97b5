"""The limits of the service, and who may ask it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """What the service allows. The reasons for the default limits are in docs/serving.md."""

    max_inputs: int = 256  # in one request
    max_text_characters: int = 20_000  # of each text
    max_body_bytes: int = 2**21
    max_written_tokens: int = 2048  # that `generate` may write for one request, over all of its inputs
    max_waiting_inputs: int = 4096  # for each model
    max_seconds: float = 30.0  # from a request's last byte to its answer, and for what a shutdown finishes
    body_seconds: float = 10.0  # for a request's headers, for its body, and for reading a long answer
    batch_tokens: int = 2048  # that go through a model together; a longer text goes alone
    token: str = ""  # the bearer token that requests must carry; "" asks for none
    origins: tuple[str, ...] = ()  # of web pages that may read answers (CORS)
    hosts: tuple[str, ...] = ()  # allowed in the Host header, in small letters and without the port; none: all
