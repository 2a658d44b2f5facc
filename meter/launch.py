"""Runs a benchmark that was written for pyperf, and prints facts about the process.

    launch.py '{"script": PATH, "arguments": [...], "replaced": {...}, "calls": 2, "loops": 1}'
    launch.py '{"script": PATH, "arguments": [...], "replaced": {...}, "timed": PATH}'

In the first form `pyperf.py` stands for pyperf, for counting; with `"executors": PATH`, `machine_code.py` describes the
JIT's machine code in this file. In the second the script is a worker of pyperf itself, which writes to the file
`timed`; pyperf's options are among the arguments.

`replaced` are expressions for some of the script's global names, instead of its own definitions: they make its work
smaller where it has no argument for that. The last line is `facts` with a JSON object.
"""

import ast
import collections
import contextlib
import gc
import json
import pathlib
import sys
import time
import types


def compiled(script, replaced):
    """Compile a script, with other definitions of some of its global names."""
    tree = ast.parse(pathlib.Path(script).read_bytes(), script)
    missing = dict(replaced)
    for index, node in enumerate(tree.body):
        name = getattr(node, "name", None)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        if name in missing:
            value = ast.parse(missing.pop(name), mode="eval").body
            new = ast.Assign([ast.Name(name, ast.Store())], value)
            tree.body[index] = ast.fix_missing_locations(ast.copy_location(new, node))
    if missing:
        raise SystemExit(f"{script} does not define {', '.join(missing)}")
    return compile(tree, script, "exec")


def run(code, script, arguments):
    """Run a compiled script as `__main__`."""
    main = types.ModuleType("__main__")
    main.__file__ = script
    sys.modules["__main__"] = main
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(pathlib.Path(script).parent))
    try:
        exec(code, vars(main))
    except SystemExit as ending:
        if ending.code:
            raise


def libraries():
    """Return the shared libraries in this process, by their file names, without extension modules."""
    found = set()
    with pathlib.Path("/proc/self/maps").open() as maps:
        for line in maps:
            path = line.split(maxsplit=5)[5:]
            name = path[0].strip().rpartition("/")[2] if path else ""
            if ".so" in name and "/lib-dynload/" not in path[0]:
                found.add(name)
    return found


def extension_modules():
    """List the imported extension modules that have files of their own."""
    origins = {name: getattr(getattr(module, "__spec__", None), "origin", None) for name, module in sys.modules.items()}
    return sorted(name for name, origin in origins.items() if str(origin).endswith(".so"))


def codes(script):
    """Yield the code objects of all functions but ours, and of a script."""
    found, waiting = set(), [thing.__code__ for thing in gc.get_objects() if isinstance(thing, types.FunctionType)]
    waiting.append(script)
    while waiting:
        code = waiting.pop()
        if id(code) not in found and code.co_filename != __file__:
            found.add(id(code))
            yield code
            waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def entries(script):
    """Yield the code objects that executors are entered from: the code, the offset, and the executor."""
    import _opcode
    import opcode

    entry = opcode.opmap.get("ENTER_EXECUTOR")
    if entry is None:  # before 3.13
        return
    for code in codes(script):
        instructions = code._co_code_adaptive[::2]  # as they are now; caches between them may look like any opcode
        index = instructions.find(entry)
        while index >= 0:
            with contextlib.suppress(ValueError, RuntimeError):  # a cache, or a build without a second tier
                yield code, 2 * index, _opcode.get_executor(code, 2 * index)
            index = instructions.find(entry, index + 1)


def executors(script):
    """Return all executors of the process by their places, side exits included.

    A place is the function and the line that an executor is entered from, such as `bm_nbody.advance:103`. That of a
    side exit follows the place of the executor that was left, with the instruction where it goes on: `… > 30`.
    """
    found, places = {}, collections.Counter()

    def add(place, executor):
        if id(executor) not in seen:
            places[place] += 1
            again = places[place]
            found[place if again == 1 else f"{place} ({again})"] = executor
            seen.add(id(executor))

    seen = set()
    for code, offset, executor in entries(script):
        line = next((line for begin, end, line in code.co_lines() if begin <= offset < end), None)
        add(f"{module_of(code)}.{code.co_qualname}:{line or 0}", executor)
    for place, executor in (waiting := list(found.items())):
        for other in gc.get_referents(executor):
            if type(other) is type(executor) and id(other) not in seen:
                add(f"{place} > {resumes_at(other)}", other)
                waiting.append((next(reversed(found)), other))
    return found


def module_of(code):
    """Return the module that a code object is of, by the name of its file or folder: `bm_nbody`, `encoder`."""
    path = pathlib.PurePath(code.co_filename)
    return path.parent.name if path.stem in ("__init__", "run_benchmark") else path.stem


def resumes_at(executor):
    """Return the number of the first instruction of an executor's trace."""
    return next((target for name, _, target, _ in executor if name == "_SET_IP"), 0)


def size_of(found):
    """Return how many executors have machine code, and the bytes of it."""
    sizes = []
    for executor in found:
        try:
            machine_code = executor.get_jit_code()
        except RuntimeError:  # a build whose executors are interpreted
            machine_code = None
        if machine_code:
            sizes.append(len(machine_code))
    return {"executors": len(sizes), "bytes": sum(sizes)}


def counted(order, code):
    """Run a benchmark between markers, and return the names of what it measured."""
    import pyperf

    time.perf_counter = pyperf.perf_counter  # some benchmarks call this one
    pyperf.calls, pyperf.loops = order["calls"], order["loops"]
    pyperf.calibrate()
    run(code, order["script"], order["arguments"])
    pyperf.mark(pyperf.LAST)
    if "executors" in order:
        import machine_code

        found = executors(code)
        machine_code.write(order["executors"], found)
        pyperf.mark(pyperf.LAST)  # while they are alive, so that their memory is not another's
    return {"names": pyperf.names, "jit": pyperf.python_has_jit()}


def timed(order, code):
    """Run a benchmark as a worker of pyperf, and return what that wrote."""
    sys.path.remove(str(pathlib.Path(__file__).parent))  # pyperf.py there is not pyperf
    output = pathlib.Path(order["timed"])
    run(code, order["script"], [*order["arguments"], "--output", str(output)])
    text = output.read_text()
    output.unlink()
    jit = getattr(sys, "_jit", None)
    return {"names": [json.loads(text)["metadata"]["name"]], "jit": jit.is_enabled() if jit else None, "timed": text}


def main():
    """Run the benchmark in the order of the command line."""
    own = libraries()  # of CPython itself: a build with the JIT is linked with one more than others
    order = json.loads(sys.argv[1])
    code = compiled(order["script"], order["replaced"])
    facts = timed(order, code) if "timed" in order else counted(order, code)
    facts |= {"libraries": sorted(libraries() - own), "extension_modules": extension_modules()}
    facts |= size_of(executors(code).values())
    print("\nfacts", json.dumps(facts), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
