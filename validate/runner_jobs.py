"""What the runner has to run: modules and scripts, as its order names them, as jobs."""

import ast
import contextlib
import fnmatch
import importlib.util
import pathlib
import re

SPLIT = frozenset({"test_capi"})  # run module by module, beside what regrtest itself splits: it is the longest of all


def test_directory():
    """Find the installed test package without importing it."""
    spec = importlib.util.find_spec("test")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this Python has no test package")
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


def expand(name, directory):
    """Make regrtest's names of a module's name: one, several for a package with `.*`, none where there is none.

    `test_capi.*` gives `test_capi.test_abstract`, `test_capi.test_bytearray` and so on.
    """
    if name == "*":
        split = SPLIT | split_by_regrtest(directory)
        return [
            found
            for entry in modules_in(directory)
            for found in (expand(f"{entry}.*", directory) if entry in split else [entry])
        ]
    package = name.removesuffix(".*")
    path = directory.joinpath(*package.split("."))
    if package == name:
        return [name] if path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file() else []
    if not path.is_dir():
        return []
    return [f"{package}.{module}" for module in modules_in(path)]


def modules_in(directory):
    """List the test modules and packages in a folder."""
    return sorted(
        entry.stem
        for entry in directory.glob("test_*")
        if (entry.suffix == ".py" and entry.is_file()) or (entry / "__init__.py").is_file()
    )


def split_by_regrtest(directory):
    """Read which packages regrtest runs module by module: `SPLITTESTDIRS` in Lib/test/libregrtest/findtests.py."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        tree = ast.parse((directory / "libregrtest" / "findtests.py").read_text(encoding="utf-8"))
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            if getattr(target, "id", None) == "SPLITTESTDIRS":
                return frozenset(ast.literal_eval(node.value))
    return frozenset()


def short(job):
    """Return the name that people know a job by: regrtest's of a module, a script's without folder and suffix."""
    return pathlib.Path(job["name"]).stem if job["kind"] == "script" else job["name"]


def key(job):
    """Name a job as the order does: two groups may hold the same module."""
    return f"{short(job)} [{job['label']}]" if job["label"] else short(job)


def deal(jobs, shard, shards):
    """Return one shard's jobs: each, heaviest first, goes where there is the least by then."""
    loads = [0.0] * shards
    mine = []
    for job in sorted(jobs, key=lambda job: (-job["weight"], key(job))):
        lightest = loads.index(min(loads))
        loads[lightest] += job["weight"]
        if lightest == shard - 1:
            mine.append(job)
    return mine


def choose(jobs, patterns):
    """Return the jobs that can have tests like these, each with what regrtest is to match (nothing for all)."""
    chosen = []
    names = [short(job) for job in jobs]
    modules = [pattern for pattern in patterns if any(is_meant(name, pattern) for name in names)]
    for job, name in zip(jobs, names, strict=True):
        if any(is_meant(name, pattern) for pattern in modules):
            chosen.append(job)
        elif match := [each for pattern in patterns if pattern not in modules for each in within(name, pattern)]:
            chosen.append({**job, "match": match})
    return chosen


def is_meant(name, pattern):
    """Whether a pattern names a module or its package, whole."""
    pattern = pattern.removeprefix("test.")
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.partition(".")[0], pattern)


def within(name, pattern):
    """Return a pattern as regrtest is to be told it, if a module can have tests like it, else nothing.

    What is told with dots and without wildcards means one test to regrtest; here it may name a class as well, or a
    module of a package.

    >>> within("test_dis", "test_dis.DisTests.*"), within("test_dis", "*generator*"), within("test_dis", "test.test_i*")
    (['test.test_dis.DisTests.*'], ['test.*generator*'], [])
    >>> within("test_dis", "test_dis.DisTests")
    ['test.test_dis.DisTests', 'test.test_dis.DisTests.*']
    """
    full = f"test.{name}."
    for candidate in (pattern, f"test.{pattern}"):
        literal = re.split(r"[*?\[]", candidate, maxsplit=1)[0]
        if literal.startswith(full) or (full.startswith(literal) and literal.startswith("test.")):
            return [candidate] if literal != candidate else [candidate, f"{candidate}.*"]
    return [pattern] if "." not in pattern else []


def plan(suite, directory):
    """Make the list of jobs, longest first, and of the items that name nothing."""
    jobs, missing = [], []
    for item in suite["items"]:
        names = [item["name"]] if item["kind"] == "script" else expand(item["name"], directory)
        if not names:
            missing.append({"name": item["name"], "label": item["label"], "optional": item["optional"]})
        for name in (name for name in names if name not in item["without"]):
            weight = item["weights"].get(name, item["weight"])
            jobs.append({**item, "name": name, "weight": weight})
    if suite["shard"]:
        jobs = deal(jobs, *suite["shard"])
    if suite["tests"]:
        jobs, missing = choose(jobs, suite["tests"]), []
    jobs.sort(key=lambda job: -suite["seconds"].get(key(job), job["weight"]))
    for number, job in enumerate(jobs):
        name = pathlib.Path(job["name"]).name
        job["id"] = (
            f"{number:03}-"
            + re.sub(r"[^\w.-]+", "-", "-".join(filter(None, (name, job["label"]))), flags=re.ASCII)[:100]
        )
    return jobs, missing
