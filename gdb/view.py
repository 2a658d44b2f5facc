"""Describes a stopped program. Runs in gdb."""

import contextlib
import os
import pathlib

import memory
from cpython import code_of, compiled, python_stack, quietly, uops_of

import gdb

FRAMES = 60  # frames of a stack, at most: a runaway recursion has thousands
LINES = 24  # lines of machine code around the pc
PAGE = 4096


class View:
    """A stopped program. `emulator` is QEMU's process id, None without QEMU."""

    def __init__(self, program, emulator):
        self.program = os.path.realpath(program)
        self.emulator = emulator
        self.pc = int(gdb.selected_frame().pc())
        self.executor, self.uops, self.uop, self.level, self.inside = None, [], None, 0, self.pc
        self.find_executor()

    def find_executor(self):
        """Find the innermost frame in an executor's machine code, the executor, and the uop."""
        ranges = compiled()
        frame = gdb.newest_frame() if ranges else None
        for level in range(FRAMES):
            if frame is None:
                return
            pc = int(frame.pc()) - (1 if level else 0)  # a return address is after the call
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
        """Return the mappings, with the program's own addresses."""
        process = self.emulator or gdb.selected_inferior().pid
        text = pathlib.Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
        offset = 0
        if self.emulator is not None:
            mapped, headers = memory.base(text, self.program), memory.program_headers(quietly("info auxv"))
            if mapped is not None and headers is not None:
                offset = mapped - headers // PAGE * PAGE
        return memory.mappings(text, offset)

    def summary(self):
        """Return the values of the report's `stop`."""
        fields = {"pc": f"{self.pc:#x}", "place": self.place(), "instruction": self.instruction()}
        frame = gdb.selected_frame()
        fields["function"] = frame.name() or ""
        line = frame.find_sal()
        fields["source"] = f"{line.symtab.filename}:{line.line}" if line.symtab else ""
        if self.executor is not None:
            begin = int(self.executor["jit_code"])
            fields["executor"] = {
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
        return fields

    def place(self):
        """Describe where the pc is."""
        if self.executor is not None and self.level == 0:
            return "JIT code"
        try:
            return memory.place(memory.at(self.mappings(), self.pc), self.program)
        except OSError:
            return gdb.solib_name(self.pc) or "memory that cannot be told"

    def instruction(self):
        """Return the instruction at the pc; empty if there is none."""
        try:
            return " ".join(gdb.selected_frame().architecture().disassemble(self.pc)[0]["asm"].split())
        except gdb.error:
            return ""

    def words(self):
        """Yield lines for the user about where it stopped."""
        summary = self.summary()
        yield f"{summary['pc']} is in {summary['place']}: {summary['instruction']}"
        if "executor" in summary:
            yield memory.executor(summary["executor"])

    def sections(self):
        """Yield the report's sections: titles, and functions that return the text."""
        yield "Python stack", python_stack
        yield "native stack", lambda: quietly(f"backtrace {FRAMES}")
        yield "machine code", self.code
        if self.executor is not None:
            yield "executor", self.trace
        yield "registers", self.registers
        yield "all threads", lambda: quietly(f"thread apply all backtrace {FRAMES}")
        yield "Python stacks of all threads", self.python_stacks
        yield "mappings", self.mapped

    def code(self):
        """Disassemble around the pc, from an earlier instruction boundary."""
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
        following = architecture.disassemble(self.pc, count=LINES // 2)
        shown = [*lines[:-1][-LINES // 2 :], *following]
        return "".join(
            f"{'=>' if line['addr'] == self.pc else '  '} {line['addr']:#x}  {line['asm']}\n" for line in shown
        )

    def registers(self):
        """List the registers without QEMU's system registers, whose names are in capitals."""
        lines = quietly("info registers").splitlines(keepends=True)
        return "".join(line for line in lines if not line[:1].isupper())

    def trace(self):
        """List the executor's uops."""
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
        lines = []
        for mapping in self.mappings():
            mark = "=>" if mapping.start <= self.pc < mapping.end else "  "
            lines.append(f"{mark} {mapping.start:#x}-{mapping.end:#x} {mapping.rights} {mapping.path}\n")
        return "".join(lines)
