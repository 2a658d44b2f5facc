"""Starts a program under gdb, lets it run to its crash, and reports on it. Runs inside gdb.

    gdb … --eval-command 'python import sys; sys.path.insert(0, FOLDER); import session; session.main()'

The input is `order.json` beside this file: {"program": path, "helper": path | null, "starts": [start, …], "emulated":
bool, "go": bool, "output": folder | null}. A start is {"about", "argv", "env", "cwd", "seconds": number | null}; when
one ends, the next is started. With `go` a program runs until it crashes or reaches its time limit; otherwise it stops
at `main`. Without `output` the user gets gdb's prompt. With it gdb runs unattended, and the folder gets `program.log`,
the program's output, and `report.jsonl`, with these lines:

    {"event": "start", "number", "about"}            which of the starts
    {"event": "stop", "signal", "interrupted", …}    where it stopped: `View.summary`
    {"event": "exit", "code" | null}                 it ended
    {"event": "section", "title", "text"}            a section of the report
    {"event": "done"}                                the report is complete

Under QEMU there is no ptrace; QEMU itself waits for gdb at a socket (`QEMU_GDB`).
"""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import threading
import time

from cpython import helper, python_stack, quietly, thread_state
from view import View

import gdb

HERE = pathlib.Path(__file__).resolve().parent
CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP")
TIMEOUT = 60  # seconds for QEMU to start, and for an interrupted program to stop
LOG = 4 << 20  # bytes kept at the end of the program's output


class Session:
    """One gdb with the programs to start."""

    def __init__(self, order):
        self.order = order
        self.batch = order["output"] is not None
        self.number = -1
        self.child = None
        self.log = None
        self.stopped_by = None
        self.exit_code = None
        self.ended = True
        self.time_is_up = False

    # -- setting up

    def prepare(self):
        """Set gdb up, and load the symbols and CPython's helper."""
        for setting in (
            "confirm off",
            "pagination off",
            "debuginfod enabled off",
            "disable-randomization off",  # not allowed in containers, so gdb would warn
            "sysroot /",
            "print frame-arguments scalars",
            "print raw-frame-arguments on",  # reprs of damaged objects are very long
            "breakpoint pending on",
        ):
            quietly(f"set {setting}")
        for action in ("quit", "corefile"):
            quietly(f"maintenance set internal-error {action} no")
        quietly(f"file {self.order['program']}")
        if self.order["helper"] is not None:
            quietly(f"source {self.order['helper']}")
        if helper("PyFramePtr") is not None:
            helper("PyFramePtr").get_thread_state = staticmethod(thread_state)
            PyBacktrace()
        # all other signals are passed to the program
        quietly("handle all nostop noprint pass")
        quietly(f"handle {' '.join(CRASHES)} stop print")
        gdb.events.stop.connect(self.on_stop)
        gdb.events.exited.connect(self.on_exit)

    def on_stop(self, event):
        """Record the signal that stopped the program."""
        self.stopped_by = getattr(event, "stop_signal", None)

    def on_exit(self, event):
        """Record how the program ended."""
        self.ended, self.exit_code = True, getattr(event, "exit_code", None)

    # -- starting

    def start(self, number):
        """Start a program, and let it run to `main`."""
        self.leave()
        self.number, self.ended, self.exit_code, self.stopped_by = number, False, None, None
        start = self.order["starts"][number]
        pathlib.Path(start["cwd"]).mkdir(parents=True, exist_ok=True)
        self.emit("start", number=number, about=start["about"])
        if self.order["emulated"]:
            self.start_emulated(start)
        else:
            self.start_native(start)

    def start_native(self, start):
        """Start it as gdb's own child, through /bin/sh."""
        inferior = gdb.selected_inferior()
        inferior.clear_env()
        for name, text in start["env"].items():
            inferior.set_env(name, text)
        quietly(f"set cwd {start['cwd']}")
        inferior.arguments = shlex.join(start["argv"][1:])
        if self.batch:
            inferior.arguments += f" >{shlex.quote(str(self.program_log))} 2>&1 </dev/null"
        quietly("tbreak main")
        gdb.execute("run", to_string=self.batch)

    def start_emulated(self, start):
        """Start it under QEMU, which waits for gdb; its child processes do not."""
        place = f"/tmp/gdb-{os.getpid()}-{time.monotonic_ns()}"
        env = {**start["env"], "QEMU_GDB": place, "QEMU_UNSET_ENV": "QEMU_GDB,QEMU_UNSET_ENV"}
        self.log = self.program_log.open("wb") if self.batch else None
        # In gdb's process group: QEMU may ignore gdb while the program runs, but it gets a Ctrl-C.
        self.child = subprocess.Popen(
            start["argv"], env=env, cwd=start["cwd"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + TIMEOUT
        while not is_listening(place):
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise gdb.GdbError("what runs the program is no QEMU, or none that waits for gdb at a socket")
            time.sleep(0.05)
        gdb.execute(f"target remote {place}", to_string=True)
        quietly("tbreak main")
        gdb.execute("continue", to_string=True)

    def leave(self):
        """Kill the program if it is still running."""
        if not self.ended:
            quietly("kill")
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None
        if self.log is not None:
            self.log.close()
            self.log = None

    @property
    def program_log(self):
        """The file for the program's output if gdb runs unattended."""
        return pathlib.Path(self.order["output"]) / "program.log"

    # -- running

    def go(self):
        """Run until a program crashes or is interrupted; when one ends, start the next. Return whether one stopped."""
        while True:
            self.run_on()
            if not self.ended:
                return True
            self.emit("exit", code=self.exit_code)
            if self.time_is_up or self.number + 1 >= len(self.order["starts"]):
                return False
            gdb.write(f"It came to its end. Next: {self.order['starts'][self.number + 1]['about']}\n")
            self.start(self.number + 1)

    def run_on(self):
        """Run until something stops the program; a SIGINT of its own does not."""
        deadline = self.deadline()
        try:
            while not self.ended and self.stopped_by not in CRASHES:
                self.stopped_by = None
                try:
                    gdb.execute("continue", to_string=self.batch)
                except gdb.error as error:  # its process is gone
                    gdb.write(f"{error}\n")
                    self.ended = True
                if not self.batch or self.time_is_up or self.stopped_by != "SIGINT":
                    return
                quietly("queue-signal SIGINT")
        finally:
            if deadline is not None:
                deadline.cancel()

    def deadline(self):
        """Start the timer that interrupts the program at its time limit; None without one."""
        seconds = self.order["starts"][self.number]["seconds"]
        if seconds is None:
            return None
        process = self.child.pid if self.child is not None else gdb.selected_inferior().pid

        def interrupt(number=signal.SIGINT):
            self.time_is_up = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

        class Deadline(threading.Thread):
            def __init__(self):
                super().__init__(daemon=True)
                self.over = threading.Event()

            def run(self):
                if not self.over.wait(seconds):
                    interrupt()
                    if not self.over.wait(TIMEOUT):
                        interrupt(signal.SIGKILL)  # it does not stop, so there is nothing to report

            def cancel(self):
                self.over.set()

        deadline = Deadline()
        deadline.start()
        return deadline

    # -- reporting

    def emit(self, event, **fields):
        """Write a line of the report."""
        if self.batch:
            with (pathlib.Path(self.order["output"]) / "report.jsonl").open("a", encoding="utf-8") as report:
                report.write(json.dumps({"event": event, **fields}) + "\n")

    def view(self):
        """Return the view of the stopped program."""
        return View(self.order["program"], self.child.pid if self.child is not None else None)

    def show(self):
        """Print where the program stopped."""
        gdb.write(python_stack())
        for line in self.view().words():
            gdb.write(f"{line}\n")

    def report(self):
        """Write the report about the stopped program, the most important sections first."""
        view = self.view()
        self.emit("stop", signal=self.stopped_by, interrupted=self.time_is_up, **view.summary())
        for title, look in view.sections():
            try:
                text = look()
            except Exception as error:  # one section that fails must not hide the others
                text = f"cannot be told: {type(error).__name__}: {error}\n"
            self.emit("section", title=title, text=text)

    def shorten(self):
        """Keep only the end of the program's output."""
        if self.program_log.is_file() and self.program_log.stat().st_size > LOG:
            with self.program_log.open("rb") as log:
                log.seek(-LOG, os.SEEK_END)
                end = log.read()
            self.program_log.write_bytes(b"[...]\n" + end)

    def work(self):
        """Carry out the order unattended."""
        self.start(0)
        if self.go():
            self.report()
        self.leave()
        self.shorten()
        self.emit("done")

    def hand_over(self):
        """Start, and leave the user at the prompt."""
        self.start(0)
        if not self.order["go"]:
            gdb.write("It stands at its beginning: `continue` lets it run.\n")
        else:
            gdb.write("It runs; Ctrl-C interrupts it.\n")
            if self.go():
                self.show()
            else:
                gdb.write("It came to its end.\n")
        gdb.write("py-bt: the Python-level stack; place: what the pc is in; again: from its beginning; quit\n")


def is_listening(place):
    """Whether a process listens at a socket; its file exists a moment earlier."""
    if not os.path.exists(place):
        return False
    with pathlib.Path("/proc/net/unix").open(encoding="utf-8") as sockets:
        # flags: SO_ACCEPTCON
        return any(line.split()[-1] == place and line.split()[3] == "00010000" for line in sockets)


class PyBacktrace(gdb.Command):
    """Print the Python-level stack; where CPython's helper finds none by the native one, by the thread's state."""

    def __init__(self):
        super().__init__("py-bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        """Print it."""
        gdb.write(python_stack())


class Again(gdb.Command):
    """Start the program from its beginning."""

    def __init__(self, session):
        super().__init__("again", gdb.COMMAND_RUNNING)
        self.session = session

    def invoke(self, argument, from_tty):
        """Start it."""
        self.session.start(self.session.number)


class Place(gdb.Command):
    """Print where the pc is: the JIT's code and its uop, a library, or the program; with the machine code."""

    def __init__(self, session):
        super().__init__("place", gdb.COMMAND_STACK)
        self.session = session

    def invoke(self, argument, from_tty):
        """Print it."""
        gdb.write(self.session.view().code())
        self.session.show()


def main():
    """Carry out `order.json`. Unattended, gdb exits with 0 if the report is complete."""
    session = Session(json.loads((HERE / "order.json").read_text(encoding="utf-8")))
    session.prepare()
    if session.batch:
        session.work()
        gdb.execute("quit 0")
    Again(session)
    Place(session)
    session.hand_over()
