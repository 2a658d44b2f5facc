"""Starts a program under gdb, lets it run to its crash, and tells what is to be seen there. Runs inside gdb.

    gdb … --eval-command 'python import sys; sys.path.insert(0, FOLDER); import session; session.main()'

`order.json` beside this file says what to do: {"program": path, "helper": path | null, "starts": [start, …],
"emulated": bool, "go": bool, "output": folder | null}. A start is {"about", "argv", "env", "cwd", "seconds": number |
null}; the next is made when one comes to its end. With `go` a program runs on to its crash, or until its time is over;
else it stands at `main`. Without `output` the user gets gdb's prompt; with it nobody is there, and the folder gets
`program.log`, what the program wrote, and `report.jsonl`, a line for each thing that is known:

    {"event": "start", "number", "about"}            which of the starts
    {"event": "stop", "signal", "interrupted", …}    where it stands, in short: `View.summary`
    {"event": "exit", "code" | null}                 it came to its end
    {"event": "section", "title", "text"}            one thing to look at
    {"event": "done"}                                nothing is missing

Under QEMU there is no ptrace: it waits for gdb at a socket by itself (`QEMU_GDB`).
"""

import contextlib
import io
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time

import gdb
import memory

HERE = pathlib.Path(__file__).resolve().parent
CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP")
PATIENCE = 60  # seconds for QEMU to come up, and for an interrupted program to stop
FRAMES = 60  # of a stack; a runaway recursion has thousands
LINES = 24  # of machine code around the pc
LOG = 4 << 20  # bytes of the program's output that are kept, from its end
PAGE = 4096
LOOPS = 100_000  # steps through linked lists of the program, which may be damaged


def quietly(command):
    """Run a command of gdb's and return what it says; what goes wrong is what it says, too."""
    try:
        return gdb.execute(command, to_string=True)
    except gdb.error as error:
        return f"{command}: {error}\n"
    except KeyboardInterrupt:  # an assertion of gdb's own that failed; it goes on, as it was told to
        return f"{command}: gdb failed\n"


def value(expression):
    """Evaluate an expression, None where it cannot be."""
    try:
        return gdb.parse_and_eval(expression)
    except (gdb.error, KeyboardInterrupt):
        return None


# What CPython's own data says


def interpreters():
    """Go through the interpreters' states."""
    state = value("_PyRuntime.interpreters.head")
    for _ in range(LOOPS):
        if state is None or not int(state):
            return
        yield state
        state = state["next"]


def thread_state(thread_id=None):
    """Return the thread state of a thread by its kernel's id, by default of the selected one; None if it has none.

    CPython's helper takes it from a thread-local variable, where QEMU cannot say and gdb 18 fails an assertion of its
    own.
    """
    if thread_id is None:
        thread = gdb.selected_thread()
        thread_id = thread.ptid[1] if thread else 0
    with contextlib.suppress(gdb.error):
        for interpreter in interpreters():
            state = interpreter["threads"]["head"]
            for _ in range(LOOPS):
                if not int(state):
                    break
                if int(state["native_thread_id"]) == thread_id:
                    return state
                state = state["next"]
    return None


def executors():
    """Go through the JIT's executors."""
    for interpreter in interpreters():
        names = {field.name for field in interpreter.type.strip_typedefs().target().strip_typedefs().fields()}
        if "executor_ptrs" in names:  # 3.15
            for number in range(min(int(interpreter["executor_count"]), LOOPS)):
                yield interpreter["executor_ptrs"][number]
        elif "executor_list_head" in names:
            executor = interpreter["executor_list_head"]
            for _ in range(LOOPS):
                if not int(executor):
                    break
                yield executor
                executor = executor["vm_data"]["links"]["next"]


def compiled():
    """List the executors that have machine code: where it begins and ends, and the executor."""
    found = []
    with contextlib.suppress(gdb.error):
        for executor in executors():
            begin = int(executor["jit_code"])
            if begin:
                found.append((begin, begin + int(executor["jit_size"]), executor))
    return found


def uops_of(executor):
    """Lay out an executor's uops in its machine code: `_PyJIT_Compile` in Python/jit.c puts stencil after stencil."""
    begin = int(executor["jit_code"])
    with contextlib.suppress(gdb.error):
        begin = int(executor["jit_side_entry"])  # until 3.14 there is something before the first
    groups = value("stencil_groups")
    if groups is None:
        return []
    sizes = []
    for number in range(min(int(executor["code_size"]), LOOPS)):
        group = groups[int(executor["trace"][number]["opcode"])]
        sizes.append((memory.stencil(str(group["emit"])), int(group["code_size"])))
    return memory.uops(begin, sizes)


def code_of(executor):
    """Name the function that an executor was made for, with its file; empty where that cannot be told."""
    try:
        code = helper("PyCodeObjectPtr").from_pyobject_ptr(executor["vm_data"]["code"])
        if code.is_null():
            return ""
        name, file = (code.pyop_field(field).proxyval(set()) for field in ("co_qualname", "co_filename"))
        line = int(code.field("co_firstlineno"))
    except Exception:  # whatever CPython's helper meets in damaged memory
        return ""
    return f"{name} ({file}:{line})"


def helper(name):
    """Return what CPython's helper defines, None without it."""
    return getattr(sys.modules["__main__"], name, None)


class PyBacktrace(gdb.Command):
    """Print the Python-level stack; where CPython's helper finds none by the native one, by the thread's state."""

    def __init__(self):
        super().__init__("py-bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        """Print it."""
        gdb.write(python_stack())


def python_stack():
    """Return the Python-level stack of the selected thread."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            helper("print_traceback_helper")(full_info=False)
        except Exception as error:
            print(f"CPython's helper failed: {error}")
    text = said.getvalue()
    if 'File "' in text:
        return text
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            state = thread_state()
            frame = helper("PyFramePtr")(state["current_frame"]) if state is not None else None
            while frame:
                frame = frame.print_traceback_until_shim()
        except Exception as error:
            print(f"  the rest cannot be read: {error}")
    if 'File "' in said.getvalue():
        return f"By the thread's state (most recent call first):\n{said.getvalue()}"
    return text or "no Python runs in this thread\n"


# Starting and stopping


class Session:
    """One gdb with the programs that it is told to start."""

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
            "disable-randomization off",  # containers may not, and gdb warns
            "sysroot /",
            "print frame-arguments scalars",
            "print raw-frame-arguments on",  # reprs of damaged objects fill pages
            "breakpoint pending on",
        ):
            quietly(f"set {setting}")
        for what in ("quit", "corefile"):
            quietly(f"maintenance set internal-error {what} no")
        quietly(f"file {self.order['program']}")
        if self.order["helper"] is not None:
            quietly(f"source {self.order['helper']}")
        if helper("PyFramePtr") is not None:
            helper("PyFramePtr").get_thread_state = staticmethod(thread_state)
            PyBacktrace()
        # every other signal is the program's own business
        quietly("handle all nostop noprint pass")
        quietly(f"handle {' '.join(CRASHES)} stop print")
        gdb.events.stop.connect(self.on_stop)
        gdb.events.exited.connect(self.on_exit)

    def on_stop(self, event):
        """Remember what stopped the program."""
        self.stopped_by = getattr(event, "stop_signal", None)

    def on_exit(self, event):
        """Remember how the program ended."""
        self.ended, self.exit_code = True, getattr(event, "exit_code", None)

    # -- starting

    def start(self, number):
        """Start a program, and let it come as far as `main`."""
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
        """Start it as gdb's own child; /bin/sh takes the quoting off."""
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
        """Start it under QEMU, which waits until gdb is there; only this process of it, and none that it starts."""
        place = f"/tmp/gdb-{os.getpid()}-{time.monotonic_ns()}"
        env = {**start["env"], "QEMU_GDB": place, "QEMU_UNSET_ENV": "QEMU_GDB,QEMU_UNSET_ENV"}
        self.log = self.program_log.open("wb") if self.batch else None
        # In gdb's process group: this QEMU may not listen to gdb while the program runs, but it hears a Ctrl-C.
        self.child = subprocess.Popen(
            start["argv"], env=env, cwd=start["cwd"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + PATIENCE
        while not is_listening(place):
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise gdb.GdbError("what runs the program is no QEMU, or none that waits for gdb at a socket")
            time.sleep(0.05)
        gdb.execute(f"target remote {place}", to_string=True)
        quietly("tbreak main")
        gdb.execute("continue", to_string=True)

    def leave(self):
        """End the program if there still is one."""
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
        """Where the program's output goes if nobody is there to see it."""
        return pathlib.Path(self.order["output"]) / "program.log"

    # -- running

    def go(self):
        """Let it run until it crashes or is interrupted; when it ends, start the next. Return whether one stands."""
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
        """Let it run until something stops it; a SIGINT of its own does not."""
        deadline = self.deadline()
        try:
            while not self.ended and self.stopped_by not in CRASHES:
                self.stopped_by = None
                try:
                    gdb.execute("continue", to_string=self.batch)
                except gdb.error as error:  # what it ran in is gone
                    gdb.write(f"{error}\n")
                    self.ended = True
                if not self.batch or self.time_is_up or self.stopped_by != "SIGINT":
                    return
                quietly("queue-signal SIGINT")
        finally:
            if deadline is not None:
                deadline.cancel()

    def deadline(self):
        """Have the program interrupted when its time is over, if it has a limit."""
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
                    if not self.over.wait(PATIENCE):
                        interrupt(signal.SIGKILL)  # it does not stop: then there is nothing to look at

            def cancel(self):
                self.over.set()

        deadline = Deadline()
        deadline.start()
        return deadline

    # -- telling

    def emit(self, event, **fields):
        """Write a line of the report."""
        if self.batch:
            with (pathlib.Path(self.order["output"]) / "report.jsonl").open("a", encoding="utf-8") as report:
                report.write(json.dumps({"event": event, **fields}) + "\n")

    def view(self):
        """Look where the program stands."""
        return View(self.order["program"], self.child.pid if self.child is not None else None)

    def show(self):
        """Say where it stands to somebody who sits before it."""
        gdb.write(python_stack())
        for line in self.view().words():
            gdb.write(f"{line}\n")

    def report(self):
        """Write what is to be seen where the program stands, the most telling first."""
        view = self.view()
        self.emit("stop", signal=self.stopped_by, interrupted=self.time_is_up, **view.summary())
        for title, look in view.sections():
            try:
                text = look()
            except Exception as error:  # one thing that cannot be had must not hide the others
                text = f"cannot be told: {type(error).__name__}: {error}\n"
            self.emit("section", title=title, text=text)

    def shorten(self):
        """Keep the end of what the program wrote."""
        if self.program_log.is_file() and self.program_log.stat().st_size > LOG:
            with self.program_log.open("rb") as log:
                log.seek(-LOG, os.SEEK_END)
                end = log.read()
            self.program_log.write_bytes(b"[...]\n" + end)

    def work(self):
        """Do all that was ordered with nobody there."""
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
        elif self.go():
            self.show()
        else:
            gdb.write("It came to its end.\n")
        gdb.write("py-bt: the Python-level stack; place: what the pc is in; again: from its beginning; quit\n")


def is_listening(place):
    """Whether somebody waits at a socket; it is there a moment before it can be connected to."""
    if not os.path.exists(place):
        return False
    with pathlib.Path("/proc/net/unix").open(encoding="utf-8") as sockets:
        # flags: SO_ACCEPTCON
        return any(line.split()[-1] == place and line.split()[3] == "00010000" for line in sockets)


class View:
    """Where the program stands, and what is to be seen there. `emulator` is QEMU's process, None without one."""

    def __init__(self, program, emulator):
        self.program = os.path.realpath(program)
        self.emulator = emulator
        self.pc = int(gdb.selected_frame().pc())
        self.executor, self.uops, self.uop, self.level, self.inside = None, [], None, 0, self.pc
        self.find_executor()

    def find_executor(self):
        """Find the executor that the pc is in, or the innermost that what the pc is in was called from, and the uop."""
        ranges = compiled()
        frame = gdb.newest_frame() if ranges else None
        for level in range(FRAMES):
            if frame is None:
                return
            pc = int(frame.pc()) - (1 if level else 0)  # a return address is behind the call
            for begin, end, executor in ranges:
                if begin <= pc < end:
                    self.executor, self.level, self.inside = executor, level, pc
                    self.uops = uops_of(executor)
                    self.uop = memory.uop_at(self.uops, pc)
                    return
            try:
                frame = frame.older()
            except gdb.error:  # a damaged stack
                return

    def mappings(self):
        """Read what is mapped, in the program's own addresses."""
        process = self.emulator or gdb.selected_inferior().pid
        text = pathlib.Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
        offset = 0
        if self.emulator is not None:
            mapped, headers = memory.base(text, self.program), memory.program_headers(quietly("info auxv"))
            if mapped is not None and headers is not None:
                offset = mapped - headers // PAGE * PAGE
        return memory.mappings(text, offset)

    def summary(self):
        """Say in short where it stands: values for the report's `stop`."""
        said = {"pc": f"{self.pc:#x}", "place": self.place(), "instruction": self.instruction()}
        frame = gdb.selected_frame()
        said["function"] = frame.name() or ""
        line = frame.find_sal()
        said["source"] = f"{line.symtab.filename}:{line.line}" if line.symtab else ""
        if self.executor is not None:
            begin = int(self.executor["jit_code"])
            said["executor"] = {
                "address": f"{int(self.executor):#x}",
                "code": f"{begin:#x}",
                "size": int(self.executor["jit_size"]),
                "function": code_of(self.executor),
                "uops": len(self.uops),
                "uop": self.uop.name if self.uop else "",
                "number": self.uop.number if self.uop else None,
                "offset": self.inside - (self.uop.start if self.uop else begin),
                "level": self.level,
            }
        return said

    def place(self):
        """Say what the pc is in."""
        if self.executor is not None and self.level == 0:
            return "JIT code"
        try:
            return memory.place(memory.at(self.mappings(), self.pc), self.program)
        except OSError:
            return gdb.solib_name(self.pc) or "memory that cannot be told"

    def instruction(self):
        """Return the instruction at the pc; empty where there is none."""
        try:
            return str(gdb.selected_frame().architecture().disassemble(self.pc)[0]["asm"]).replace("\t", " ")
        except gdb.error:
            return ""

    def words(self):
        """Say where it stands for somebody who sits before it."""
        said = self.summary()
        yield f"{said['pc']} is in {said['place']}: {said['instruction']}"
        if "executor" in said:
            yield memory.executor(said["executor"])

    def sections(self):
        """List what is to be looked at: titles, and functions that return the text."""
        yield "Python stack", python_stack
        yield "native stack", lambda: quietly(f"backtrace {FRAMES}")
        yield "machine code", self.code
        if self.executor is not None:
            yield "executor", self.trace
        yield "registers", lambda: quietly("info registers")
        yield "all threads", lambda: quietly(f"thread apply all backtrace {FRAMES}")
        yield "Python stacks of all threads", self.python_stacks
        yield "mappings", self.mapped

    def code(self):
        """Disassemble around the pc: from a point before it from which the instructions follow without a gap."""
        frame = gdb.selected_frame()
        architecture, begin = frame.architecture(), self.pc
        if architecture.name() == "aarch64":
            begin -= LINES // 2 * 4
        with contextlib.suppress(gdb.error, RuntimeError):
            block = frame.function() and frame.block()
            while block and block.function is None:
                block = block.superblock
            begin = block.start if block else begin
        if self.uop is not None and self.level == 0:
            begin = self.uop.start
        lines = architecture.disassemble(begin, self.pc)
        after = architecture.disassemble(self.pc, count=LINES // 2)
        shown = [*lines[:-1][-LINES // 2 :], *after]
        return "".join(
            f"{'=>' if line['addr'] == self.pc else '  '} {line['addr']:#x}  {line['asm']}\n" for line in shown
        )

    def trace(self):
        """List the uops that the executor was made of."""
        lines = [f"for {code_of(self.executor) or 'a function that cannot be told'}\n"]
        for uop in self.uops:
            instruction = self.executor["trace"][uop.number]
            mark = "=>" if uop == self.uop else "  "
            fields = {field.name for field in instruction.type.strip_typedefs().fields()}
            operand = "operand0" if "operand0" in fields else "operand"
            lines.append(
                f"{mark} {uop.number:3}  {uop.start:#x}  {uop.name}  oparg {int(instruction['oparg'])}"
                f"  operand {int(instruction[operand]):#x}\n"
            )
        return "".join(lines)

    def python_stacks(self):
        """Return the Python-level stacks of all threads."""
        selected, texts = gdb.selected_thread(), []
        for thread in gdb.selected_inferior().threads():
            thread.switch()
            texts.append(f"Thread {thread.num} ({thread.ptid[1]}):\n{python_stack()}")
        selected.switch()
        return "\n".join(texts)

    def mapped(self):
        """List the mappings."""
        return "".join(
            f"{'=>' if each.start <= self.pc < each.end else '  '} {each.start:#x}-{each.end:#x} {each.rights}"
            f" {each.path}\n"
            for each in self.mappings()
        )


class Again(gdb.Command):
    """Start the program from its beginning."""

    def __init__(self, session):
        super().__init__("again", gdb.COMMAND_RUNNING)
        self.session = session

    def invoke(self, argument, from_tty):
        """Start it."""
        self.session.start(self.session.number)


class Place(gdb.Command):
    """Say what the pc is in: the JIT's code and which uop of it, a library, or the program; with the machine code."""

    def __init__(self, session):
        super().__init__("place", gdb.COMMAND_STACK)
        self.session = session

    def invoke(self, argument, from_tty):
        """Say it."""
        gdb.write(self.session.view().code())
        self.session.show()


def main():
    """Do what `order.json` says. In a batch gdb ends with 0 when the report is whole."""
    session = Session(json.loads((HERE / "order.json").read_text(encoding="utf-8")))
    session.prepare()
    if session.batch:
        session.work()
        gdb.execute("quit 0")
    Again(session)
    Place(session)
    session.hand_over()
