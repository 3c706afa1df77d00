"""Forks that stand for processes of Python: arguments, places, streams, ends."""

import os
import signal
import subprocess
import sys

import pytest

from tests import processes


def test_arguments_folder_environment_and_streams(tmp_path):
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['X'], __name__); print('told', file=sys.stderr)"
    done = processes.run([sys.executable, "-c", code, "a b"], cwd=tmp_path, env=processes.environment(X="1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"['a b'] {tmp_path} 1 __main__\n", "told\n")
    (tmp_path / "script.py").write_text("import sys; print(__file__, sys.path[0], sys.argv)")
    done = processes.run([sys.executable, "script.py"], cwd=tmp_path)
    assert done.stdout == f"script.py {tmp_path} ['script.py']\n", done.stderr
    assert "usage: " in processes.run([sys.executable, "-m", "json.tool", "--help"]).stdout


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
    ],
)
def test_exit_codes(code, expected):
    done = processes.run([sys.executable, "-c", code])
    assert done.returncode == expected and ("ZeroDivisionError" in done.stderr) == (expected == 1)


def test_signals_and_files_that_are_passed_on():
    reader, writer = os.pipe()
    code = f"import os, sys, time; os.write({writer}, b'x'); print('ready', flush=True); time.sleep(60)"
    for number, expected in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 1)):
        process = processes.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[writer], start_new_session=True,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n" and os.read(reader, 1) == b"x"
        assert process.poll() is None and os.getsid(process.pid) == process.pid
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        process.send_signal(number)
        assert ("KeyboardInterrupt" in process.communicate(timeout=60)[1]) == (number == signal.SIGINT)
        assert process.returncode == expected
    os.close(reader)
    os.close(writer)
