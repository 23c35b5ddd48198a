"""What a person sees on the terminal: lines, progress, errors, and how a command ends.

Everything goes to standard error but a command's result. Foreign text is shown with its control characters
escaped and without markup.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from pseudolabel.errors import Interrupted, PseudolabelError

if TYPE_CHECKING:
    from rich.progress import Progress

INTERVAL = 10.0  # seconds between two plain lines of progress
_bars: list[Progress] = []  # the live bar, which lines must be printed above


def escape(text: object) -> str:
    """Text on one line, with everything that does not print (controls, bidi marks, surrogates) escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text)
    )


def say(text: object) -> None:
    """One line on standard error; a newline in the text is escaped."""
    line = escape(text)
    with contextlib.suppress(BrokenPipeError):
        if _bars:
            _bars[-1].console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


def show(result: Any) -> None:
    """One JSON document on standard output: sorted keys, indent 1, ASCII."""
    put(json.dumps(result, sort_keys=True, indent=1, allow_nan=False))


def prints_results() -> bool:
    """Whether this process shows a command's result: under a launcher only the first rank does."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def put(text: str) -> None:
    """Text on standard output; a reader that has gone (`| head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop(sys.stdout)


class Bar:
    """Progress of one loop.

    Attributes:
        done: items so far, those done before this run included.
    """

    def __init__(self, total: int, label: str, done: int = 0, tell: Callable[[], None] | None = None) -> None:
        self.total = total
        self.label = escape(label)
        self.done = done
        self._before = done
        self._start = time.monotonic()
        self._tell = tell

    def advance(self, n: int = 1) -> None:
        """Say that n more items are done."""
        self.done += n
        if self._tell is not None:
            self._tell()

    def line(self) -> str:
        """Items, rate and remaining time as plain text."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._before) / seconds
        text = f"{self.label}: {self.done}/{self.total}, {rate:.3g}/s"
        left = self.total - self.done
        if left > 0:
            return text + (f", {duration(left / rate)} left" if rate > 0 else "")
        return text + f", {duration(seconds)}"


def duration(seconds: float) -> str:
    """Seconds as `7 s`, `3 min 05 s` or `2 h 14 min`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


@contextlib.contextmanager
def progress(
    total: int, label: str, quiet: bool = False, *, done: int = 0, interval: float = INTERVAL
) -> Iterator[Bar]:
    """A bar on a terminal, else a plain line every `interval` seconds and one at the end; to standard error.

    Args:
        total: items in all.
        label: what is being done.
        quiet: show nothing.
        done: items of the total that an earlier run has done.
        interval: seconds between two plain lines.
    """
    if quiet:
        yield Bar(total, label, done)
    elif sys.stderr.isatty() and not _bars:
        with _live(total, label, done) as bar:
            yield bar
    else:
        last = time.monotonic()

        def tell() -> None:
            nonlocal last
            if time.monotonic() - last >= interval and bar.done < total:
                last = time.monotonic()
                say(bar.line())

        bar = Bar(total, label, done, tell)
        yield bar
        say(bar.line())


@contextlib.contextmanager
def _live(total: int, label: str, done: int) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False)) as live:
        task = live.add_task(escape(label), total=total, completed=done, rate="")
        start = time.monotonic()

        def tell() -> None:
            rate = (bar.done - done) / max(time.monotonic() - start, 1e-9)
            live.update(task, completed=bar.done, rate=f"{rate:.3g}/s")

        bar = Bar(total, label, done, tell)
        _bars.append(live)
        try:
            yield bar
        finally:
            _bars.remove(live)


def _shout(*texts: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, "".join(texts).encode())


# A forked worker shares the terminal but not the thread that draws the bar, whose lock may be held.
os.register_at_fork(after_in_child=_bars.clear)


class Stop:
    """Whether somebody asked to stop.

    Attributes:
        requested: a first SIGINT, SIGTERM or SIGHUP has come.
        leaving: a second one has; other threads of the process should give up what they do.
        exit_code: 130 after SIGINT, 143 after SIGTERM and SIGHUP.
    """

    def __init__(self) -> None:
        self.requested = self.leaving = False
        self.exit_code = 130

    def fault(self, done: str, *, kept: bool = True) -> Interrupted:
        """What to raise once the current item is finished.

        Args:
            done: how far it came.
            kept: whether that stays.
        """
        again = "continues" if kept else "starts over"
        return Interrupted(f"interrupted: {done}; the same command {again}", self.exit_code)


@contextlib.contextmanager
def interruptible() -> Iterator[Stop]:
    """The first signal to stop only sets `requested`; the second raises where it strikes; the third leaves.

    Outside of the main thread signals cannot be caught, and nothing changes.
    """
    stop = Stop()
    owner = os.getpid()
    times = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal times
        if os.getpid() != owner:  # a forked worker: its parent decides, but may also end it
            if number != signal.SIGINT:
                os._exit(_exit_code(number))
            return
        times += 1
        stop.exit_code = _exit_code(number)
        stop.requested = True
        # Straight to the descriptor: the signal may have struck in the middle of a print.
        if times == 1:
            _shout("\n" if _bars else "", "stopping after the current item; once more to leave now\n")
        elif times == 2:
            stop.leaving = True
            _raise(number)
        else:
            _shout("\x1b[?25h" if _bars else "")  # the cursor, which a bar hides
            os._exit(stop.exit_code)

    with _handlers(handle):
        yield stop


def run(command: Callable[[], int | None], json_wanted: bool = False, debug: bool = False) -> int:
    """Run a command and say how it ended.

    Args:
        command: does all and prints its result; returns an exit code or None for 0.
        json_wanted: an error goes to standard output too, as {"error": {"kind", "message"}}.
        debug: show the traceback of any error.

    Returns:
        The exit code: that of a `PseudolabelError`, 130 or 143 after a signal, 1 after a fault in our own
        code.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(_exit_code(number))
        _raise(number)

    owner = os.getpid()
    before = warnings.showwarning
    warnings.showwarning = _say_warning
    try:
        with _handlers(leave):
            code = _guarded(command, json_wanted, debug)
    except (KeyboardInterrupt, _Terminated) as signalled:  # while the handlers were put back
        code = 130 if isinstance(signalled, KeyboardInterrupt) else 143
    finally:
        warnings.showwarning = before
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _drop(stream)
    return code


class _Terminated(BaseException):
    """SIGTERM or SIGHUP."""


def _guarded(command: Callable[[], int | None], json_wanted: bool, debug: bool) -> int:
    try:
        return command() or 0
    except PseudolabelError as fault:
        return _fail(fault.kind, str(fault), fault.exit_code, json_wanted, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", "interrupted; the same command continues", 130, json_wanted, debug)
    except _Terminated:
        return _fail("interrupted", "terminated; the same command continues", 143, json_wanted, debug)
    except BrokenPipeError as error:
        if _is_broken(sys.stdout):
            return 0
        return _fail("internal", f"internal: {_text_of(error)}", 1, json_wanted, debug)
    except Exception as error:
        message = f"internal: {_text_of(error)}; --debug shows where"
        return _fail("internal", message, 1, json_wanted, debug)


def _fail(kind: str, message: str, code: int, json_wanted: bool, debug: bool) -> int:
    if debug:
        for line in traceback.format_exc().splitlines():
            say(line)
    for line in message.splitlines() or [""]:  # a recipe tells all its faults at once, a line each
        say(line)
    if json_wanted and prints_results():
        show({"error": {"kind": kind, "message": message}})
    return code


def _text_of(error: BaseException) -> str:
    first = " ".join(str(error).split())
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")


def _exit_code(number: int) -> int:
    return 130 if number == signal.SIGINT else 143


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise _Terminated


@contextlib.contextmanager
def _handlers(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Our handler for the signals that ask to stop; one that is ignored (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] is not signal.SIG_IGN]
    try:
        for number in ours:
            signal.signal(number, handle)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _is_broken(stream: TextIO) -> bool:
    """Whether nobody reads the stream any more."""
    try:
        look = select.poll()
        look.register(stream.fileno(), select.POLLOUT)
        broken = any(events & (select.POLLERR | select.POLLHUP) for _, events in look.poll(0))
    except (OSError, ValueError):  # no file behind it, as in tests
        return False
    if broken:
        _drop(stream)
    return broken


def _drop(stream: TextIO) -> None:
    """Send what is still to be written nowhere, so that the interpreter can end in peace."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
