"""Every command and every block of Python in the documents is executed, in order, on small files and tiny networks."""

import contextlib
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_sandbox import RELEASED, link_files, reduced, write_files, write_real_chinese
from test_documents import DOCUMENTS, ROOT

from electrain.cli.app import main

# What is not executed, and why. The first words of a command, as a regular expression. The options of electrain's verbs
# among them are checked by test_documents.
NOT_EXECUTED = {
    r"make ": "makes an environment first, which needs a network; .ci/run.sh calls it",
    r"(\.venv/bin/)?(python -m )?pip install": "needs a network",
    r"electrain demo": "takes minutes; tests/road/test_whole_road.py runs it",
    r"electrain --install-completion": "writes into the start files of the shell; tests/road tries it in an empty home",
    r"tensorboard ": "serves until it is stopped",
    r"torchrun ": "needs several GPUs; tests/continuity runs several processes",
    r"mkdocs ": "test_site.py builds the site",
    r"docker ": "needs Docker",
    r"(\.venv/bin/)?python -m build|\.ci/package": "makes environments; .ci/run calls .ci/package, which builds",
    r"(\.venv/bin/)?python -m pytest": "these are the tests",
    r"(PYTHONPATH=src )?(OMP_NUM_THREADS=\d )?python benchmarks/": "takes minutes; test_documents checks its options",
    r"python tests/documents/write_field_tables": "writes into the documents; test_documents compares them",
    r"curl ": "asks a running service; tests/road/test_serve.py sends what docs/serving.md shows",
    r"(git|cd|export|mkdir|source|sha256sum) ": "is no part of electrain",
    r"electrain serve": "serves until it is stopped; tests/road starts it",
    r"electrain push |electrain .*hub:|electrain .*--push-to-hub": "needs the hub",
}
EXECUTED_ELSEWHERE = {"python.md": "test_example_scripts.py", "onnx.md": "tests/road/test_exported_folders.py"}
QUICK_PAGES = {"README.md", "README.zh.md"}
CHINESE_PAGES = {"README.zh.md", "your-language.md"}
PIPED = re.compile(r"\s(\||>|2>|&)\s.*$")


def blocks_of(document: Path) -> list[tuple[str, str]]:
    """The language and text of each fenced block that can be executed, in order."""
    found = re.findall(
        r"^```(sh|bash|console|python)\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [("python" if language == "python" else "sh", text) for language, text in found]


def commands_of(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [
        re.sub(" +", " ", line.removeprefix("$ ")).strip()
        for line in lines
        if line.strip() and not line.startswith("#")
    ]


def is_executed(command: str) -> bool:
    return not any(re.match(pattern, command) for pattern in NOT_EXECUTED)


PAGES = [document for document in DOCUMENTS if blocks_of(document) and document.name not in EXECUTED_ELSEWHERE]


def page_parameters() -> Iterator[object]:
    for page in PAGES:
        marks = [] if page.name in QUICK_PAGES else [pytest.mark.slow]
        yield pytest.param(page, marks=marks, id=page.relative_to(ROOT).as_posix())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small files, a tokenizer, shards, a run of its own and a stand-in for the released models."""
    folder = tmp_path_factory.mktemp("template")
    write_files(folder)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        execute("electrain tokenizer my_text/*.jsonl.gz --output tok")
        execute("electrain prepare my_text/*.jsonl.gz --tokenizer tok --output shards")
        execute("electrain pretrain --config tiny --shards shards --output run")
        tagging = "--model run --train train.conll --validation validation.conll"
        execute(f"electrain finetune tagging {tagging} --output brown_pos")
        electra = "--encoder.backbone electra --generator.kind masked --generator.layers 0 --generator.size-fraction 1"
        execute(f"electrain pretrain --config tiny --shards shards --output released {electra}")
        for part, name in zip(("model", "generator"), RELEASED, strict=True):
            (folder / name).parent.mkdir(exist_ok=True)
            os.rename(folder / "released" / part, folder / name)
    return folder


def quicken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("electrain.pretraining.run.measure_matrix_rate", lambda *_: 1e9)
    patch.setattr("electrain.pretraining.hardware.measure_matrix_rate", lambda *_: 1e9)
    for stage in ("pretraining", "finetuning"):
        patch.setattr(f"electrain.{stage}.report.draw_curves", lambda *_: [])
    patch.setattr("electrain.training.arithmetic.measure_speedup", lambda *_: 0.0)


def execute(command: str) -> None:
    """Runs one command in this process and in the working folder; it must end well."""
    words = shlex.split(PIPED.sub("", command), comments=True)  # a tab within quotes stays
    words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    code: object = None
    try:
        if words[0] == "electrain":
            main(reduced(words[1:]))
        else:
            assert words[0] == "python", f"neither executed nor named in NOT_EXECUTED: {command}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    assert not code, command


@pytest.mark.parametrize("page", page_parameters())
def test_every_command_of_the_page_runs(
    page: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicken(monkeypatch)
    link_files(template, tmp_path)
    if page.name in CHINESE_PAGES and not write_real_chinese(tmp_path):
        print("invented Chinese: ELECTRAIN_DATA names no folder with pretrain/ and chnsenticorp/")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for language, block in blocks_of(page):
        if language == "python":
            exec(compile(block, str(page), "exec"), names)
            continue
        for command in filter(is_executed, commands_of(block)):
            make_way(command)
            execute(command)


def make_way(command: str) -> None:
    """Removes the output of an earlier command, or of the template, that stands where this one writes."""
    found = re.search(r"--output ([\w./-]+)", command)
    if found and "--resume" not in command and Path(found[1]).is_dir():
        shutil.rmtree(found[1])
