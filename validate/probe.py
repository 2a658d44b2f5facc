"""Print facts about the CPython that runs this, and what it does, as one JSON object on stdout.

Runs inside the target with the CPython under test only, independent of crossjit. An unknown fact is null, with the
reason under its name in `errors`; it does not end the probe.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import struct
import sys
import sysconfig
import time
import traceback

ERROR = 4_000  # characters of an error, at most
BRIEF = 300  # characters of one of many errors, at most
STEPS = 20_000  # more than any threshold for tracing a loop: 16 in 3.13, 4,095 in 3.14, 4,000 in 3.15
MACH_MACHINES = {0x01000007: "X86_64", 0x0100000C: "ARM64"}  # <mach/machine.h>, without CPU_TYPE_
ELF_MACHINES = {3: "EM_386", 40: "EM_ARM", 62: "EM_X86_64", 183: "EM_AARCH64", 243: "EM_RISCV"}


def executable():
    """Read the header of the running interpreter's file, in the format of Linux (ELF) or macOS (Mach-O)."""
    path = pathlib.Path(sys.executable).resolve()
    with path.open("rb") as file:
        header = file.read(4096)
    if header[:4] == b"\x7fELF":
        return elf(path, header)
    return mach_o(path, header, platform.machine())


def mach_o(path, header, running):
    """Read a Mach-O header, <mach-o/loader.h>; of a file for several machines, <mach-o/fat.h>, the running one's."""
    if header[:4] == b"\xca\xfe\xba\xbe":
        (count,) = struct.unpack_from(">I", header, 4)
        numbers = [struct.unpack_from(">I", header, 8 + 20 * index)[0] for index in range(min(count, 16))]
    elif header[:4] == b"\xcf\xfa\xed\xfe":
        numbers = [struct.unpack_from("<I", header, 4)[0]]
    else:
        raise ValueError(f"{path} is no ELF file, and no 64-bit Mach-O file")
    machines = [MACH_MACHINES.get(number, f"CPU_TYPE_{number}") for number in numbers]
    own = [machine for machine in machines if machine == running.upper()]
    return {"path": str(path), "machine": (own or machines)[0], "bits": 64, "order": "little"}


def elf(path, header):
    """Read an ELF header: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html."""
    order = {1: "<", 2: ">"}[header[5]]
    (number,) = struct.unpack_from(order + "H", header, 18)
    return {
        "path": str(path),
        "machine": ELF_MACHINES.get(number, f"EM_{number}"),
        "bits": {1: 32, 2: 64}[header[4]],
        "order": {"<": "little", ">": "big"}[order],
    }


def version():
    """The version as text, as a hexadecimal number, and as a list."""
    return {"text": sys.version, "hex": f"{sys.hexversion:#010x}", "info": list(sys.version_info)}


def libc():
    """The C library that the process runs with."""
    return os.confstr("CS_GNU_LIBC_VERSION")


def gil():
    """Whether the build has a GIL, and whether it is on now."""
    ask = getattr(sys, "_is_gil_enabled", None)
    return {
        "disabled_in_build": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "enabled": ask() if ask else True,
    }


def jit_switches():
    """The facts of `sys._jit`; null without it (3.13)."""
    jit = getattr(sys, "_jit", None)
    if jit is None:
        return None
    return {"available": jit.is_available(), "enabled": jit.is_enabled()}


def environment():
    """The environment variables of the interpreter and the emulator."""
    names = sorted(name for name in os.environ if name.startswith(("PYTHON", "QEMU")))
    return {name: os.environ[name] for name in names}


def count(steps):
    """Sum up in a loop, the simplest code that is traced."""
    total = 0
    for number in range(steps):
        total += number & 7
    return total


class Account:
    """A class with attributes and methods, for specialised traces."""

    def __init__(self):
        self.balance = 0

    def pay(self, amount):
        """Change an attribute."""
        self.balance += amount
        return self.balance


def evens(steps):
    """Yield in a loop of its own."""
    for number in range(steps):
        yield number * 2


def calls(steps):
    """Call methods, run a generator, index a list, as loops of real programs do."""
    account = Account()
    items = [0] * 8
    for number in evens(steps):
        items[number & 7] = account.pay(number & 3)
    return account.balance + sum(items[1::2])


def activity(steps):
    """Count the steps of a loop in which `sys._jit.is_active()` was true; null if it does not exist."""
    is_active = getattr(getattr(sys, "_jit", None), "is_active", None)
    if is_active is None:
        return None
    active = 0
    for _ in range(steps):
        if is_active():
            active += 1
    return active


def executors(code):
    """Collect the executors of a code object: a list of {offset, code}; `code` is the machine code or null.

    One without machine code is the tier-2 interpreter's: `get_jit_code` returns None, or raises RuntimeError in a
    build without JIT (`get_jit_code` in Python/optimizer.c).
    """
    import _opcode

    result = []
    for offset in range(0, len(code.co_code), 2):
        try:
            executor = _opcode.get_executor(code, offset)
        except ValueError:
            continue
        if executor is None:
            continue
        try:
            machine_code = executor.get_jit_code()
        except RuntimeError:
            machine_code = None
        result.append({"offset": offset, "code": machine_code})
    return result


def describe(name, function, arguments, expected, inspected):
    """Run a workload until it is hot, check its result, and look for executors in the code objects of `inspected`."""
    started = time.perf_counter()
    result = function(*arguments)
    fact = {"name": name, "correct": result == expected, "executors": [], "unavailable": None, "seconds": 0.0}
    codes = []
    for inspected_function in inspected:
        try:
            executors_found = executors(inspected_function.__code__)
        except RuntimeError as error:  # a build without a second tier (_opcode_get_executor_impl in Modules/_opcode.c)
            fact["unavailable"] = str(error)
            break
        for executor in executors_found:
            code = executor["code"]
            codes.append(code)
            fact["executors"].append(
                {
                    "function": inspected_function.__qualname__,
                    "offset": executor["offset"],
                    "kind": "uops" if code is None else "machine code",
                    "bytes": None if code is None else len(code),
                }
            )
    fact["seconds"] = round(time.perf_counter() - started, 3)
    return fact, [code for code in codes if code]


def workloads():
    """Run both workloads. Return their facts and all machine code."""
    pays = [number * 2 & 3 for number in range(STEPS)]
    balance, items = 0, [0] * 8
    for number, pay in enumerate(pays):
        balance += pay
        items[number * 2 & 7] = balance
    facts, codes = [], []
    for name, function, expected, inspected in (
        ("loop", count, sum(number & 7 for number in range(STEPS)), (count,)),
        ("calls and generators", calls, balance + sum(items[1::2]), (calls, evens, Account.pay)),
    ):
        fact, machine_code = describe(name, function, (STEPS,), expected, inspected)
        facts.append(fact)
        codes += machine_code
    return facts, codes


def executable_memory(codes):
    """Measure the process's executable memory that is not mapped from a file, and look for each machine code in it.

    It is read through ctypes, not /proc/self/mem: under QEMU that file has the emulator's addresses, but
    /proc/self/maps the program's.
    """
    regions = []
    with pathlib.Path("/proc/self/maps").open() as maps:
        for line in maps:
            addresses, permissions, _offset, _device, inode, *path = line.split(maxsplit=5)
            if permissions.startswith("r-x") and inode == "0" and not path:
                start, end = (int(address, 16) for address in addresses.split("-"))
                regions.append((start, end - start))
    fact = {"regions": len(regions), "bytes": sum(size for _, size in regions), "machine_code_in_it": None}
    import ctypes

    contents = [ctypes.string_at(start, size) for start, size in regions]
    fact["machine_code_in_it"] = sum(any(code in content for content in contents) for code in codes)
    return fact


def modules():
    """Import every optional extension module that this CPython knows (`MODULE_…_STATE` in its Makefile).

    Return {"imported": [...], "failed": {name: error}, "absent": {name: the build's reason}}.
    """
    imported, failed, absent = [], {}, {}
    for variable, state in sorted(sysconfig.get_config_vars().items()):
        if not (variable.startswith("MODULE_") and variable.endswith("_STATE")):
            continue
        name = variable.removeprefix("MODULE_").removesuffix("_STATE").lower()
        if state != "yes":
            if state not in ("n/a", "disabled"):
                absent[name] = str(state)
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # every error in a module's initialisation is a finding
            failed[name] = f"{type(error).__name__}: {error}"[:BRIEF]
        else:
            imported.append(name)
    return {"imported": imported, "failed": failed, "absent": absent}


def flags():
    """The interpreter's own flags."""
    return {name: getattr(sys.flags, name) for name in dir(sys.flags) if _is_flag(name)}


def _is_flag(name):
    return not name.startswith(("_", "n_")) and name not in ("count", "index")


def collect(told):
    """Collect all facts. `told` are facts that only the host knows, such as whether this is emulated."""
    facts, errors = {"told": told}, {}

    def fact(name, ask, *arguments):
        try:
            facts[name] = ask(*arguments)
        except Exception:
            facts[name] = None
            errors[name] = traceback.format_exc(limit=-3)[-ERROR:]

    fact("executable", executable)
    fact("machine", platform.machine)
    fact("version", version)
    fact("implementation", lambda: sys.implementation.name)
    fact("configure", lambda: sysconfig.get_config_var("CONFIG_ARGS"))
    fact("debug", lambda: bool(sysconfig.get_config_var("Py_DEBUG")))
    fact("compiler", platform.python_compiler)
    fact("libc", libc)
    fact("flags", flags)
    fact("environment", environment)
    fact("gil", gil)
    fact("jit", jit_switches)

    machine_code = []

    def run_workloads():
        workload_facts, codes = workloads()
        machine_code.extend(codes)
        return workload_facts

    fact("workloads", run_workloads)
    fact("steps_active", activity, STEPS)
    fact("executable_memory", executable_memory, machine_code)
    # last: importing a module without support for free threading turns the GIL on
    fact("modules", modules)
    fact("gil_after_imports", gil)
    facts["errors"] = errors
    return facts


def main():
    """Print the facts. Other output to stdout, such as from imported modules, is discarded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--told", type=json.loads, default={}, help="a JSON object of facts that the host adds")
    told = parser.parse_args().told
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        channel.write(json.dumps(collect(told)) + "\n")


if __name__ == "__main__":
    main()
