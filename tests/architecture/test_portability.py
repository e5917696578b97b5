"""Nothing in the source asks for what Windows or macOS lack, but where there is a fallback; files are read as UTF-8."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import electrain

SOURCE = Path(electrain.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
LIMITS, SYSTEM, LOCK = "foundation/limits.py", "foundation/system.py", "foundation/lock.py"
# The one file where each may stand, beside its fallback; "" is nowhere.
MODULES = {
    **dict.fromkeys(("fcntl", "msvcrt", "resource"), SYSTEM),
    **dict.fromkeys(("grp", "posix", "pty", "pwd", "syslog", "termios", "tty", "winreg", "_winapi"), ""),
}
_OF_OS = """
chown fchmod fork forkpty geteuid getgid getloadavg getpgid getppid getuid killpg lchown link mkfifo mknod nice openpty
pread pwrite readlink setpgid setsid startfile statvfs symlink sync uname wait waitpid O_DIRECTORY O_SYNC
"""
_OF_SIGNAL = "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGUSR1 alarm pause pthread_sigmask setitimer sigwait"
ATTRIBUTES = {
    **dict.fromkeys(("os.sched_getaffinity", "os.sysconf", "ctypes.windll"), LIMITS),
    **dict.fromkeys(("os.kill", "os.O_NOFOLLOW", "os.O_BINARY", "os.supports_fd"), SYSTEM),
    "os.register_at_fork": LOCK,
    **dict.fromkeys((f"os.{name}" for name in _OF_OS.split()), ""),
    **dict.fromkeys((f"signal.{name}" for name in _OF_SIGNAL.split()), ""),
    **dict.fromkeys(("time.tzset", "socket.AF_UNIX", "select.epoll", "select.kqueue", "select.poll"), ""),
}
# Methods that are POSIX's alone, whatever they are called on.
METHODS = ("add_signal_handler", "symlink_to", "hardlink_to")
FOLDERS = ("/proc", "/sys/", "/dev/", "/tmp", "/etc/", "/usr/", "/var/", "C:")
FOLDERS_IN = (LIMITS, "cli/doctor/machine.py")
# Options that Windows' `Popen` refuses.
POPEN = ("preexec_fn", "start_new_session", "process_group", "pass_fds", "user", "umask")


def docstrings(tree: ast.AST) -> set[int]:
    """The nodes that are documentation, or another text that stands by itself."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def faults(code: str, name: str) -> Iterator[str]:
    """What a file of that name must not use, each with its line."""
    tree = ast.parse(code)
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import):
            found = [one.name for one in node.names if MODULES.get(one.name, name) != name]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
            found = [one for one in names if {**MODULES, **ATTRIBUTES}.get(one, name) != name]
        elif isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            found = [whole] if ATTRIBUTES.get(whole, name) != name or node.attr in METHODS else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            found = [node.value] if node.value.startswith(FOLDERS) and name not in FOLDERS_IN else []
        elif isinstance(node, ast.Call):
            found = [*text_faults(node), *(word.arg for word in node.keywords if word.arg in POPEN)]
        yield from (f"line {node.lineno}: {one}" for one in found)


def text_faults(node: ast.Call) -> list[str]:
    """A text file opened in the encoding of the machine, or written with the line ends of the machine."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    words = {word.arg for word in node.keywords}
    if called == "read_text":
        return [] if node.args or "encoding" in words else ["read_text without an encoding"]
    if called == "write_text":
        has_encoding = len(node.args) > 1 or "encoding" in words
        return [] if has_encoding and "newline" in words else ["write_text without an encoding or newline"]
    if called in ("run", "Popen", "check_output") and words & {"text", "universal_newlines"}:
        return [] if "encoding" in words else [f"{called} of text without an encoding"]
    if called not in ("open", "NamedTemporaryFile", "TemporaryFile", "fdopen") or ast.unparse(node.func) == "os.open":
        return []
    # `open(path, mode)`, but `path.open(mode)`.
    is_method = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in ("gzip", "bz2", "lzma")
    modes = [*node.args[0 if is_method else 1 :], *(word.value for word in node.keywords if word.arg == "mode")]
    default = "r" if called == "open" and (is_method or isinstance(node.func, ast.Name)) else "rb"
    mode = next((str(one.value) for one in modes if isinstance(one, ast.Constant) and one.value), default)
    is_text = "t" in mode or ("b" not in mode and default == "r")
    if not is_text or ("encoding" in words and ("newline" in words or not set(mode) & set("wax+"))):
        return []
    return [f"{ast.unparse(node)}: open without an encoding, or for writing without newline"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_needs_one_kind_of_system(path: Path) -> None:
    """A new use belongs into foundation/system.py or limits.py, with what happens where it is missing."""
    name = path.relative_to(SOURCE).as_posix()
    assert not list(faults(path.read_text("utf-8"), name)), name


CODE = [
    "import fcntl",
    "from os import fork",
    "from signal import SIGHUP",
    "n = len(os.sched_getaffinity(0))",
    "signal.signal(signal.SIGHUP, end)",
    "loop.add_signal_handler(number, stop)",
    "os.kill(pid, 0)",
    "path.symlink_to(other)",
    "x = Path('/proc/self/status')",
    "open('name')",
    "open('name', 'w', encoding='utf-8')",
    "path.open()",
    "path.open('a', encoding='utf-8')",
    "gzip.open('name', 'wt')",
    "path.read_text()",
    "path.write_text('x', 'utf-8')",
    "subprocess.run(command, text=True)",
    "subprocess.Popen(command, start_new_session=True)",
]


@pytest.mark.parametrize("code", CODE)
def test_each_kind_is_found(code: str) -> None:
    assert list(faults(code, "data/x.py"))


@pytest.mark.parametrize(
    "code",
    [
        "open('name', 'rb')",
        "open('name', encoding='utf-8')",
        "open('name', 'x', encoding='utf-8', newline='')",
        "gzip.open('name')",
        "path.read_text('utf-8')",
        "path.open('rb')",
        '"""/proc is only named here."""',
        "tempfile.TemporaryFile()",
    ],
)
def test_what_is_allowed_is_not_found(code: str) -> None:
    assert not list(faults(code, "data/x.py"))
