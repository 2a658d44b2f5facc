"""Reads CPython's data in a stopped program: threads, Python-level stacks, the JIT's executors. Runs in gdb."""

import contextlib
import io
import sys

import memory

import gdb

LOOPS = 100_000  # steps through linked lists of the program, which may be damaged


def quietly(command):
    """Run a gdb command and return its output, or its error."""
    try:
        return gdb.execute(command, to_string=True)
    except gdb.error as error:
        return f"{command}: {error}\n"
    except KeyboardInterrupt:  # a failed assertion in gdb, which is set to continue
        return f"{command}: gdb failed\n"


def value(expression):
    """Evaluate an expression, None if it cannot be."""
    try:
        return gdb.parse_and_eval(expression)
    except (gdb.error, KeyboardInterrupt):
        return None


def interpreters():
    """Yield the interpreters' states."""
    state = value("_PyRuntime.interpreters.head")
    for _ in range(LOOPS):
        if state is None or not int(state):
            return
        yield state
        state = state["next"]


def thread_state(thread_id=None):
    """Return the thread state of a thread by its kernel id, by default the selected one; None if it has none.

    CPython's helper reads it from a thread-local variable, which does not work under QEMU, and fails an assertion in
    gdb 18.
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
    """Yield the JIT's executors."""
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
    """List the executors with machine code: its start, its end, and the executor."""
    ranges = []
    with contextlib.suppress(gdb.error):
        for executor in executors():
            begin = int(executor["jit_code"])
            if begin:
                ranges.append((begin, begin + int(executor["jit_size"]), executor))
    return ranges


def uops_of(executor):
    """Return the positions of an executor's uops in its machine code, a sequence of stencils (Python/jit.c)."""
    begin = int(executor["jit_code"])
    with contextlib.suppress(gdb.error):
        begin = int(executor["jit_side_entry"])  # up to 3.14 there is code before the first
    groups = value("stencil_groups")
    if groups is None:
        return []
    sizes = []
    for number in range(min(int(executor["code_size"]), LOOPS)):
        group = groups[int(executor["trace"][number]["opcode"])]
        sizes.append((memory.stencil(str(group["emit"])), int(group["code_size"])))
    return memory.uops(begin, sizes)


def code_of(executor):
    """Return an executor's function, with its file and line; empty if unknown."""
    try:
        code = helper("PyCodeObjectPtr").from_pyobject_ptr(executor["vm_data"]["code"])
        if code.is_null():
            return ""
        name, file = (code.pyop_field(field).proxyval(set()) for field in ("co_qualname", "co_filename"))
        line = int(code.field("co_firstlineno"))
    except Exception:  # CPython's helper may fail in any way on damaged memory
        return ""
    return f"{name} ({file}:{line})"


def helper(name):
    """Return a definition of CPython's helper, None without it."""
    return getattr(sys.modules["__main__"], name, None)


def python_stack():
    """Return the Python-level stack of the selected thread."""
    if helper("PyFramePtr") is None:
        return "there is no CPython's helper for gdb in the artifact\n"
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            helper("print_traceback_helper")(full_info=False)
        except Exception as error:
            print(f"CPython's helper failed: {error}")
    text = output.getvalue()
    if 'File "' in text:
        return text
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            state = thread_state()
            frame = helper("PyFramePtr")(state["current_frame"]) if state is not None else None
            while frame:
                frame = frame.print_traceback_until_shim()
        except Exception as error:
            print(f"  the rest cannot be read: {error}")
    if 'File "' in output.getvalue():
        return f"By the thread's state (most recent call first):\n{output.getvalue()}"
    return text or "no Python runs in this thread\n"
