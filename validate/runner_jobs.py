"""The runner's jobs: modules and scripts, expanded from its input."""

import ast
import contextlib
import fnmatch
import importlib.util
import pathlib
import re

SPLIT = frozenset({"test_capi"})  # run module by module, like the packages that regrtest splits: it is the longest


def test_directory():
    """Find the installed test package without importing it."""
    spec = importlib.util.find_spec("test")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this Python has no test package")
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


def expand(name, directory):
    """Return regrtest's names for an item's name: one, several for a package with `.*`, none for an unknown one.

    `test_capi.*` gives `test_capi.test_abstract`, `test_capi.test_bytearray` and so on.
    """
    if name == "*":
        split = SPLIT | split_by_regrtest(directory)
        return [
            name_found
            for entry in modules_in(directory)
            for name_found in (expand(f"{entry}.*", directory) if entry in split else [entry])
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
    """Return the packages that regrtest runs module by module: `SPLITTESTDIRS` in Lib/test/libregrtest/findtests.py."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        tree = ast.parse((directory / "libregrtest" / "findtests.py").read_text(encoding="utf-8"))
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            if getattr(target, "id", None) == "SPLITTESTDIRS":
                return frozenset(ast.literal_eval(node.value))
    return frozenset()


def short(job):
    """Return a job's short name: regrtest's name of a module, a script's stem."""
    return pathlib.Path(job["name"]).stem if job["kind"] == "script" else job["name"]


def key(job):
    """Return a job's key: two groups may have the same module."""
    return f"{short(job)} [{job['label']}]" if job["label"] else short(job)


def deal(jobs, shard, shards):
    """Return one shard's jobs: each job, heaviest first, goes to the shard with the least load."""
    loads = [0.0] * shards
    dealt = []
    for job in sorted(jobs, key=lambda job: (-job["weight"], key(job))):
        lightest = loads.index(min(loads))
        loads[lightest] += job["weight"]
        if lightest == shard - 1:
            dealt.append(job)
    return dealt


def choose(jobs, patterns):
    """Return the jobs that can have such tests, each with regrtest's patterns (none for all)."""
    chosen = []
    names = [short(job) for job in jobs]
    modules = [pattern for pattern in patterns if any(names_module(name, pattern) for name in names)]
    for job, name in zip(jobs, names, strict=True):
        if any(names_module(name, pattern) for pattern in modules):
            chosen.append(job)
        elif match := [part for pattern in patterns if pattern not in modules for part in within(name, pattern)]:
            chosen.append({**job, "match": match})
    return chosen


def names_module(name, pattern):
    """Whether a pattern names a whole module or its package."""
    pattern = pattern.removeprefix("test.")
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.partition(".")[0], pattern)


def within(name, pattern):
    """Return regrtest's patterns for a pattern if a module can have such tests, else none.

    For regrtest, a pattern with dots and without wildcards is one test; here it may also be a class, or a module of a
    package.

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
    """Return the jobs, longest first, and the items without a module."""
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
