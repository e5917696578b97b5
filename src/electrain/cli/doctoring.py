"""The verb `doctor`: what is this machine, and what on it keeps electrain from working?"""

import sys

from electrain.cli.options import print_json


def doctor(*, online: bool = False) -> None:
    """Describe this machine and its installation, and name what does not work.

    Prints a table on a terminal, otherwise one line of JSON. Neither holds the name of the user or of the machine, nor
    a path, so both can be shown to others. The exit code is 2 if something that electrain needs is missing or broken.

    Args:
        online: Also ask the Hugging Face hub one request. By default, nothing uses the network.
    """
    from electrain.foundation.progress import say

    say("doctor: looks at this machine, and tries every library, which takes a few seconds or a minute")
    from electrain.cli.doctor.diagnosis import diagnose, print_table

    found = diagnose(online=online)
    if sys.stdout is not None and sys.stdout.isatty():
        print_table(found)
    else:
        print_json(found)
    if not found["usable"]:
        raise SystemExit(2)
