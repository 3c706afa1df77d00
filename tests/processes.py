"""Python processes whose imports are done: forks of one that waits, as a training takes longer to import than to run.

`Popen` and `run` are called as those of subprocess, with a command that begins with sys.executable. Where the start of
Python is the claim (which modules it loads, from which folder), take subprocess; elsewhere than on Linux these do.

The process that waits has one thread and does nothing but import and fork. A fork takes arguments, environment, folder
and open files of its own, runs as `__main__`, and ends without taking its modules apart, which alone takes a second.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["Popen", "environment", "run"]

REPOSITORY = Path(__file__).resolve().parents[1]
# Above all numbers that a process is asked to use.
HIGH = 1000


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that runs the code of this checkout on one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **more}


class Forked:
    """What tests use of subprocess.Popen, for a fork of the process that waits."""

    def __init__(
        self,
        command,
        *,
        env,
        cwd=None,
        stdout=None,
        stderr=None,
        text=True,
        pass_fds=(),
        start_new_session=False,
    ):
        python, *self.args = map(str, command)
        assert python == sys.executable and text
        self.returncode = None
        self.stdout, out = _stream(stdout, 1)
        self.stderr, err = _stream(stderr, 2)
        request = {
            "arguments": self.args,
            "folder": str(cwd or os.getcwd()),
            "environment": dict(env),
            "numbers": list(pass_fds),
            "session": start_new_session,
        }
        self._answers, theirs = socket.socketpair()
        socket.send_fds(_waiting(), [json.dumps(request).encode() + b"\n"], [theirs.fileno(), out, err, *pass_fds])
        theirs.close()
        for given, number in ((stdout, out), (stderr, err)):
            if given in (subprocess.PIPE, subprocess.DEVNULL):
                os.close(number)
        self.pid = self._number()

    def poll(self):
        """Return the exit code, None while it runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.returncode = self._number()
        return self.returncode

    def wait(self, timeout=None):
        """Return the exit code when it has ended."""
        if self.returncode is None and not select.select([self._answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def communicate(self, timeout=None):
        """Return what it wrote into pipes when it has ended."""
        found = {}
        readers = [
            threading.Thread(target=lambda k=k, pipe=pipe: found.update({k: pipe.read()}), daemon=True)
            for k, pipe in enumerate((self.stdout, self.stderr))
            if pipe is not None
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return found.get(0), found.get(1)

    def send_signal(self, number):
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _number(self):
        line = b""
        while not line.endswith(b"\n"):
            piece = self._answers.recv(1)
            if not piece:
                raise RuntimeError("the process that forks has ended")
            line += piece
        return int(line)


def Popen(command, *, env=None, **options):
    """Start a process, without `env` in that of `environment`."""
    return (Forked if sys.platform == "linux" else subprocess.Popen)(command, env=env or environment(), **options)


def run(command, **options) -> subprocess.CompletedProcess:
    """Run to the end, for five minutes at most, and return what it wrote."""
    process = Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _stream(given, number):
    """Return the end to read, if there is one, and the file descriptor to write to."""
    if given == subprocess.PIPE:
        reader, writer = os.pipe()
        return open(reader), writer  # noqa: SIM115
    if given == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, number if given is None else given.fileno()


@cache
def _waiting() -> socket.socket:
    """Start the process that waits, once; it ends with this one."""
    ours, theirs = socket.socketpair()
    code = f"from tests.processes import _serve; _serve({theirs.fileno()})"
    one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(**one),
        cwd=REPOSITORY,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()

    def end():
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(number: int) -> None:
    """Fork for each request until nobody is left to ask."""
    channel = socket.socket(fileno=number)
    _import()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "forks of a process with threads may hang"
    while True:
        text, files = b"", []
        while not text.endswith(b"\n"):
            piece, more, *_ = socket.recv_fds(channel, 1 << 16, 16)
            # Those that have ended.
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not piece:
                os._exit(0)
            text, files = text + piece, files + more
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    channel.close()
    answers, *files = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, HIGH) for file in _closing(files)]
    child = os.fork()
    if child:
        _tell_of(child, answers, files)
    os.close(answers)
    code = 1
    try:
        _become(json.loads(text), files)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _import() -> None:
    """Import what the commands do; without the training stack, what is left."""
    import asecalc_mlip.calculators.piwsl
    import asecalc_mlip.cli
    import asecalc_mlip.md  # noqa: F401

    with suppress(ImportError):
        import training.eam
        import training.results.finish
        import training.train
        import training.tune  # noqa: F401


def _closing(files: list[int]):
    for file in files:
        yield file
        os.close(file)


def _tell_of(child: int, answers: int, files: list[int]) -> None:
    """Write the number of a process, wait for it, and write its exit code."""
    for file in files:
        os.close(file)
    with suppress(OSError):
        os.write(answers, f"{child}\n".encode())
        status = os.waitpid(child, 0)[1]
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict, files: list[int]) -> None:
    """Be the process that is asked for."""
    for file, number in zip(files, [1, 2, *request["numbers"]], strict=True):
        os.dup2(file, number)
        os.close(file)
    if request["session"]:
        os.setsid()
    # A shell that runs tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    what, *arguments = request["arguments"]
    sys.argv[:] = [what, *arguments]
    if what == "-c":
        code, *arguments = arguments
        sys.argv[:] = ["-c", *arguments]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif what == "-m":
        module, *arguments = arguments
        sys.argv[:] = [module, *arguments]
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(what).resolve().parent)
        runpy.run_path(what, run_name="__main__")
