"""Requests per second and waiting times of `electrain serve`, with many clients and with one at a time.

    python benchmarks/serve_load.py --model NAME=RUN [NAME=RUN ...] --sentences FILE.tsv [--clients 64] [--seconds 60]
        [--batch-tokens 2048]

Starts the service on a free port. `--sentences` holds a text in the first column of each line after the header. Each
request asks a task that one of the models can do, `embed` left out where there is another, with one text in most
requests, eight in one of ten, and twenty joined to a long one in one of fifty. First one client asks one request after
the other, for a third of the time, then all clients at once, then one client again: the machine's other work shows in
the difference of its two turns. All requests are drawn from the same 400, and an answer must equal the first one to the
same request, with numbers within 1e-4. The clients share the cores with the service, and cost a fraction of it.

Rows of a table go to stderr, one line of JSON to stdout.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DISTINCT_REQUESTS = 400
TOLERANCE = 1e-4


@dataclass
class Turn:
    """What some clients saw in some seconds."""

    clients: int
    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)  # of each request
    of_short: list[float] = field(default_factory=list)  # of those with one short text
    texts: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0  # answers that differ from the first one to the same request

    def summary(self) -> dict[str, object]:
        """The figures of the turn."""
        return {
            "clients": self.clients,
            "seconds": round(self.seconds, 1),
            "requests": len(self.milliseconds),
            "requests_per_second": round(len(self.milliseconds) / self.seconds, 1),
            "texts_per_second": round(self.texts / self.seconds, 1),
            "p50_ms": percentile(self.milliseconds, 0.5),
            "p99_ms": percentile(self.milliseconds, 0.99),
            "p50_short_ms": percentile(self.of_short, 0.5),
            "p99_short_ms": percentile(self.of_short, 0.99),
            "statuses": dict(self.statuses),
            "wrong": self.wrong,
        }


@dataclass(frozen=True)
class Question:
    """A request: its route, its body as JSON, and the number of its texts."""

    path: str
    body: bytes
    texts: int
    is_short: bool


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that this fraction of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(fraction * len(ordered)))], 1) if ordered else 0.0


def questions(tasks: Sequence[tuple[str, str]], sentences: Sequence[str], seed: int = 0) -> list[Question]:
    """Requests of mixed tasks and lengths.

    Args: tasks: each with the name of its model.
    """
    draws = random.Random(seed)
    made = []
    for number in range(DISTINCT_REQUESTS):
        task, model = tasks[number % len(tasks)]
        kind = "long" if number % 50 == 7 else "many" if number % 10 == 3 else "short"
        texts = [
            " ".join(draws.choices(sentences, k=20 if kind == "long" else 1)) for _ in range(8 if kind == "many" else 1)
        ]
        body = json.dumps({"inputs": texts, "model": model}).encode()
        made.append(Question(f"/{task}", body, len(texts), kind == "short"))
    return made


async def turn(url: str, asked: Sequence[Question], clients: int, seconds: float, known: dict[int, object]) -> Turn:
    """Lets the clients ask for some seconds, each on its own connection, one request after the other.

    Args: known: the first answer to each request, by its number; new ones are added.
    """
    result, started = Turn(clients), time.perf_counter()

    async def client(number: int) -> None:
        parts, draws = urlsplit(url), random.Random(number)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() - started < seconds:
            which = draws.randrange(len(asked))
            question, sent = asked[which], time.perf_counter()
            head = f"POST {question.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(question.body)}\r\n\r\n".encode() + question.body)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            content = await reader.readexactly(length)
            milliseconds = (time.perf_counter() - sent) * 1000
            status = int(lines[0].split()[1])
            result.statuses[status] += 1
            result.texts += question.texts
            result.milliseconds.append(milliseconds)
            result.of_short += [milliseconds] if question.is_short else []
            if status == 200:
                answer = json.loads(content)
                result.wrong += not is_near(answer, known.setdefault(which, answer))
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    result.seconds = time.perf_counter() - started
    return result


def is_near(one: object, other: object) -> bool:
    """True for equal JSON, with numbers within the tolerance."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=TOLERANCE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_near(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_near, one, other))
    return one == other


def start(models: Sequence[str], batch_tokens: int | None) -> tuple[subprocess.Popen[str], str]:
    """The service, once it is ready, and its address."""
    command = [sys.executable, "-m", "electrain.cli.app", "serve", "--port", "0", "--model", *models]
    command += [] if batch_tokens is None else ["--batch-tokens", str(batch_tokens)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "ready at " in line:
            return process, line.split("ready at ")[1].strip()
        print(line, end="", file=sys.stderr)
    raise SystemExit("the service did not start")


def tasks_of(url: str) -> list[tuple[str, str]]:
    """The task of each model of the service that it alone is there for."""
    from urllib.request import urlopen

    with urlopen(f"{url}models") as response:
        models = json.load(response)["models"]
    return [(one["tasks"][0], one["name"]) for one in models]


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch-tokens", type=int, help="of the service; by default, its own default")
    given = parser.parse_args()
    lines = given.sentences.read_text("utf-8").splitlines()[1:]
    process, url = start(given.model, given.batch_tokens)
    # The log is read, so that the service never waits for it.
    log = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    try:
        asked = questions(tasks_of(url), [line.split("\t")[0] for line in lines])
        known: dict[int, object] = {}
        turns = []
        for clients, seconds in ((1, given.seconds / 3), (given.clients, given.seconds), (1, given.seconds / 3)):
            turns.append(asyncio.run(turn(url, asked, clients, seconds, known)).summary())
            print("|", " | ".join(map(str, turns[-1].values())), "|", file=sys.stderr)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        log.wait()
    facts = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps(facts | {"batch_tokens": given.batch_tokens, "turns": turns, "exit_code": code}))


if __name__ == "__main__":
    main()
