"""How a command speaks and ends: exit codes, one-line errors, signals, harmless text."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable

import pytest

from pseudolabel import console
from pseudolabel.errors import (
    DataError,
    Interrupted,
    MachineError,
    NumericError,
    PseudolabelError,
    UsageError,
)


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


ENDS = [
    (DataError("x.png: is damaged"), 1, "data", "x.png: is damaged"),
    (MachineError("disk is full"), 1, "environment", "disk is full"),
    (NumericError("loss is NaN"), 1, "numeric", "loss is NaN"),
    (UsageError("voc.yaml:7: ..."), 2, "usage", "voc.yaml:7: ..."),
    (PseudolabelError("odd"), 1, "internal", "odd"),
    (Interrupted("interrupted", 143), 143, "interrupted", "interrupted"),
    (KeyboardInterrupt(), 130, "interrupted", "interrupted; the same command continues"),
    (ZeroDivisionError("a\nb"), 1, "internal", "internal: ZeroDivisionError: a b; --debug shows where"),
    (MemoryError(), 1, "internal", "internal: MemoryError; --debug shows where"),
    (BrokenPipeError("of a worker"), 1, "internal", "internal: BrokenPipeError: of a worker"),
]


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"), ENDS, ids=[type(row[0]).__name__ for row in ENDS]
)
def test_every_end_has_its_code_and_one_line(
    error: BaseException, code: int, kind: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.run(raising(error)) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", message + "\n")
    assert console.run(raising(error), json_wanted=True) == code
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"error": {"kind": kind, "message": message}}
    assert shown.err == message + "\n"
    assert console.run(raising(error), debug=True) == code
    shown = capsys.readouterr()
    assert "Traceback" in shown.err
    assert shown.err.endswith(message + "\n")


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_that_ends_in_peace(
    value: int | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.run(lambda: value) == code
    assert capsys.readouterr() == ("", "")


def test_nothing_that_steers_a_terminal_gets_through(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[31mred\rb\nc\t[red]d[/red]\u202e\x9b\udcff é 😀 \x00")
    assert capsys.readouterr().err == ("a\\x1b[31mred\\rb\\nc\\t[red]d[/red]\\u202e\\x9b\\udcff é 😀 \\x00\n")


def test_results_are_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    console.show({"b": None, "a": "ü\x1b"})
    shown = capsys.readouterr()
    assert shown.out == '{\n "a": "\\u00fc\\u001b",\n "b": null\n}\n'
    assert shown.err == ""
    with pytest.raises(ValueError):
        console.show(float("nan"))


def test_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("x.png: has several frames\n", UserWarning, stacklevel=1)

    before = warnings.showwarning
    with warnings.catch_warnings():  # pytest puts its own in place
        assert console.run(command) == 0
    assert warnings.showwarning is before
    assert "has several frames" in capsys.readouterr().err


def python(program: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def test_a_reader_that_has_gone_is_no_error() -> None:
    program = """
import sys
from pseudolabel import console
def command():
    for _ in range(9999):
        {write}
    return {code}
sys.exit(console.run(command))
"""
    for write, code, expected in (
        ("console.put('x' * 99)", 0, 0),
        ("console.put('x' * 99)", 1, 1),
        ("print('x' * 99)", 0, 0),
        ("sys.stdout.write('x') if _ == 9998 else None", 0, 0),
    ):
        child = python(program.format(write=write, code=code))
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == expected
        child.stderr.close()


PROGRAM = """
import sys, time
from pseudolabel import console
def command():
    with console.interruptible() as stop:
        print("ready", flush=True)
        for item in range(10_000):
            time.sleep(0.01)
            if stop.requested and {polite}:
                raise stop.fault(f"{{item}} of 10000 images are done")
sys.exit(console.run(command, json_wanted=True))
"""


def ended(child: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=30)
    return child.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_the_first_signal_finishes_the_item(number: signal.Signals, code: int) -> None:
    child = python(PROGRAM.format(polite=True))
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    status, out, err = ended(child)
    assert status == code
    assert err.startswith("stopping after the current item; once more to leave now\n")
    assert err.endswith("images are done; the same command continues\n")
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_leaves(number: signal.Signals, code: int) -> None:
    child = python(PROGRAM.format(polite=False))
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.send_signal(number)
    child.stderr.readline()
    child.send_signal(number)
    status, out, err = ended(child)
    assert status == code
    assert err.endswith("; the same command continues\n")
    assert err.count("\n") == 1
    assert json.loads(out)["error"]["kind"] == "interrupted"


def test_the_third_leaves_even_a_cleanup_that_hangs() -> None:
    program = PROGRAM.replace(
        "for item in",
        "try: time.sleep(99)\n        finally: print('up', flush=True); time.sleep(99)\n        for item in",
    )
    child = python(program.format(polite=False))
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert ended(child)[0] == 143


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_outside_of_any_loop_ends_the_command(number: signal.Signals, code: int) -> None:
    child = python(
        "import sys, time\nfrom pseudolabel import console\n"
        "def command():\n    print(flush=True)\n    time.sleep(60)\n"
        "sys.exit(console.run(command))"
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    status, _, err = ended(child)
    assert status == code
    assert err.count("\n") == 1
    assert "the same command continues" in err


def test_nohup_stays_in_force() -> None:
    child = python(
        PROGRAM.format(polite=True), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.send_signal(signal.SIGINT)
    assert ended(child)[0] == 130


def test_a_forked_worker_ignores_ctrl_c_and_dies_of_sigterm() -> None:
    program = """
import os, signal, sys, time
from pseudolabel import console
def command():
    with console.interruptible() as stop:
        child = os.fork()
        if not child:
            time.sleep(60)
        time.sleep(0.1)
        os.kill(child, signal.SIGINT)
        time.sleep(0.1)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
        assert not stop.requested
sys.exit(console.run(command))
"""
    assert ended(python(program)) == (0, "", "")


def test_handlers_are_put_back_and_other_threads_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    answers = []

    def elsewhere() -> None:
        with console.interruptible() as stop:
            answers.append(stop.requested)
        answers.append(console.run(lambda: 7))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert answers == [False, 7]
    with console.interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with console.progress(50, "ma\nps", done=10) as bar:
        for _ in range(40):
            clock[0] += 3.0
            bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        *(f"ma\\nps: {n}/50, 0.333/s, {console.duration(3 * (50 - n))} left" for n in range(14, 50, 4)),
        "ma\\nps: 50/50, 0.333/s, 2 min 00 s",
    ]
    with console.progress(50, "maps", quiet=True) as bar:
        bar.advance(50)
    assert capsys.readouterr() == ("", "")
    assert bar.done == 50


def test_progress_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(0, "maps"):
        pass
    assert "maps: 0/0" in capsys.readouterr().err
    with console.progress(5, "maps"):
        pass
    assert capsys.readouterr().err == "maps: 0/5, 0/s\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599.7, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_progress_on_a_terminal_is_a_bar_and_lines_go_above_it() -> None:
    program = """
import sys
from pseudolabel import console
def command():
    with console.progress(20, "[red]maps") as bar:
        for n in range(20):
            bar.advance()
            if n == 10:
                console.say("a line [bold]with[/bold] \\x1b[31m")
sys.exit(console.run(command))
"""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = io.BytesIO()
    with contextlib.suppress(OSError):  # a closed terminal
        while data := os.read(ours, 4096):
            shown.write(data)
    out, _ = child.communicate(timeout=30)
    os.close(ours)
    text = shown.getvalue().decode()
    assert child.returncode == 0
    assert out == b"", "standard output is for results"
    assert "[red]maps" in text
    assert "20/20" in text
    assert "a line [bold]with[/bold] \\x1b[31m" in text
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
