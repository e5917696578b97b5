"""The verb `check`: is a folder still what electrain wrote?"""

from pathlib import Path

from electrain.cli.options import print_json
from electrain.foundation.progress import counted, say


def check(folder: Path, /) -> None:
    """Check that no file of a folder is damaged or missing.

    Compares sizes and hashes, reads every file, and says one line for each fault. A copy of a run can be checked
    before the original is removed.

    Args:
        folder: Folder that electrain wrote: a tokenizer, shards, a run, a model or a checkpoint.
    """
    from electrain.inference.check import check_folder

    findings = check_folder(folder)
    for fault in findings.faults:
        say(f"electrain check: {fault}")
    if findings.faults:
        raise SystemExit(2)
    for unfinished in findings.unfinished:
        say(f"{unfinished}: not finished")
    say(f"{counted(findings.files, 'file')} {'is' if findings.files == 1 else 'are'} sound")
    print_json({"folder": str(folder), "files": findings.files, "finished": not findings.unfinished})
