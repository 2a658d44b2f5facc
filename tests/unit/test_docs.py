"""The documentation: each command in it runs as far as it can without an engine, and what it names is there.

A command that needs the engine must get to it, so all its options, names and values have been found valid by then. All
others run to their end, beside a run record and a stash.
"""

from __future__ import annotations

import importlib.metadata
import io
import itertools
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from invoke.parser.context import to_flag
from markdown_it import MarkdownIt
from markdown_it.token import Token

from benchmarks import builds
from benchmarks import triage as triage_benchmark
from crossjit import engine, host
from crossjit.bisect import history
from crossjit.bisect.journal import Journal, Plan
from crossjit.capsule import archive
from crossjit.config import recipes as recipe_documents
from crossjit.config import suites
from crossjit.config.setting import SETTINGS
from crossjit.distribution import archive as distribution
from crossjit.effect import base as effect_base
from crossjit.errors import EngineError, SourceError
from crossjit.measure import model
from crossjit.model import Arch, Cell, CellResult, Verdict
from crossjit.pipeline import matrix
from crossjit.remote import signing
from crossjit.runs.model import exit_code
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.sources import folder as sources_folder
from crossjit.sources import request as sources
from crossjit.stash.store import Store
from crossjit.tasks import develop, docs, namespace, program
from crossjit.tasks.options import Request, to_record
from tests import example_effects, example_measurements, example_runs
from tests.unit import test_capsule, test_distribution, test_local_pythons
from tests.unit.trees import SUPPORT, manifest, shareable, stream

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if path.is_file()
)

GOOD, BAD = "a" * 40, "b" * 40  # commits
NO_ENGINE = "no engine in this test"
EXAMPLE_RUN = "20261123-1613"  # in the pages, a run that there was

SHAREABLE = shareable(manifest("", Cell("3.15", Arch.AARCH64, "jit")))

# What stands for something else in a page, and an example of that.
PLACEHOLDERS = {
    "BUILD_KEY": SHAREABLE.build_key,
    "ARTIFACT": "3.15/aarch64/jit",
    "COMMAND": "build",
    "FILE": "file",
    "SECONDS": "60",
    "REPO": ".",
    "A..B": "HEAD~10..HEAD",
    "${{ matrix.recipe }}": "3.15",
    "${{ matrix.arch }}": "aarch64",
    "${{ matrix.variant }}": "jit",
}
SHELL = {"echo", "export", "pipx", "source"}  # not of our environment, with nothing to check
MAINTENANCE = {"schema", "docs"}  # these write into the clone; here they only look
OUR_PROGRAMS = {"./inv", "crossjit", ".venv/bin/crossjit", ".venv/bin/invoke"}
BENCHMARKS = {"benchmarks/builds.py": builds.parser, "benchmarks/triage.py": triage_benchmark.parser}


@dataclass(frozen=True)
class Shown:
    """A command that a page shows."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


# Reading the pages


def tokens(page: str) -> Iterator[tuple[int, Token]]:
    """Yield a page's blocks and what is inside lines, each with the number of the line where its block begins."""
    for block in MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8")):
        line = block.map[0] + 1 if block.map else 0
        yield line, block
        for child in block.children or ():
            yield line, child


def shown(pages: Iterable[str]) -> Iterator[Shown]:
    """Yield all commands: those in blocks of shell and YAML, and those of ours within a line."""
    for page in pages:
        for number, token in tokens(page):
            if token.type in ("fence", "code_block"):
                for offset, line in enumerate(token.content.splitlines(), start=1):
                    yield from (Shown(page, number + offset, words) for words in commands(shell_of(token.info, line)))
            elif token.type == "code_inline" and re.match(r"(\./inv|crossjit|\.venv/bin/\S+) \S", token.content):
                yield from (Shown(page, number, words) for words in commands(filled(token.content)))


def shell_of(language: str, line: str) -> str:
    """Return what a shell gets of a block's line: all of it, what a workflow's step runs, or nothing."""
    if language == "sh":
        return filled(line)
    match = re.match(r"\s*(?:- )?run: (.*)", line) if language == "yaml" else None
    return filled(match[1]) if match else ""


def filled(text: str) -> str:
    for placeholder, example in PLACEHOLDERS.items():
        text = text.replace(placeholder, example)
    return text


def commands(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line of shell, each as its words."""
    lexer = shlex.shlex(re.split(r"(?:^|\s)# ", line)[0], posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    redirected = False
    for word in (*lexer, ";"):
        if set(word) <= set("();<>|&"):
            if words and not redirected:
                yield tuple(words)
            words, redirected = [], word in (">", ">>")
        else:
            words.append(word)
            for inner in re.findall(r"\$\((.*?)\)", word):
                yield from commands(inner)


ALL = tuple(dict.fromkeys(shown(PAGES)))


# Running what they show


def nothing_starts(*arguments: object, **options: object) -> None:
    raise EngineError(NO_ENGINE)


class NoEngine:
    """A client that gets no answer."""

    leftovers = ()
    lacks = ()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return nothing_starts


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home folder with sources and a recipe, and a state folder with a run and an artifact."""
    home = tmp_path_factory.mktemp("home")
    (home / "cpython/.git").mkdir(parents=True)
    (home / "Python-3.15.0rc2.tar.xz").touch()
    test_local_pythons.archived(test_local_pythons.make(home / "python3.15"), home / "python3.15.tar.xz", "w:xz")
    (home / "my-recipe.toml").write_bytes((ROOT / "recipes/3.15.toml").read_bytes())
    settings = Settings(home=home / "state")
    store, key = Store(settings.stash), "c0ffee" + "0" * 58
    for made in (manifest(key), SHAREABLE):
        with store.lock(made.build_key), store.staging(made.build_key) as staging:
            staging.add("install", stream())
            staging.add("support", stream(SUPPORT, top="support"))
            staging.add("generated", stream({}, top="generated"))
            staging.commit(made)
    public = signing.make(home / "key.pem")
    (home / "keys.toml").write_text(f'[keys]\nci = "{public}"\n')
    (home / "file").write_text("{}")
    results = example_runs.results()
    passed = [each for each in results if each.verdict is Verdict.PASS]
    uploaded = example_runs.record(Settings(home=home / "elsewhere"), passed, also=())
    uploaded.folder.parent.rename(home / "downloads")
    (home / "matrix.json").write_text(json.dumps(matrix.matrix([each.cell for each in passed])))
    request = to_record(Request())
    with RunRecord.start(
        settings, example_runs.ARGV, example_runs.FACTS, cells=[each.cell for each in results], request=request
    ) as record:
        for result in results:
            record.set_cell(result)
        # one run is of every kind
        plan = Plan(
            repo=".", good=GOOD, bad=BAD, bad_ref="main", arch=Arch.AARCH64.value, variant="jit", tests=("test_dis",)
        )
        Journal.start(record.folder, plan)
        measured = example_measurements.measurement(Arch.AARCH64)
        model.save(record.cell_folder(measured.cell), measured)
    return home


@pytest.fixture
def home(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that as the user's home folder, on a machine without an engine."""
    monkeypatch.setattr(engine, "connect", lambda settings: NoEngine())
    for name in ("ensure", "check", "setup"):
        monkeypatch.setattr(host, name, nothing_starts)
    monkeypatch.setattr(develop, "run_child", lambda argv, **options: 0)
    workflows = {
        path.name: path.read_bytes() for path in Path(__file__).with_name("workflows").joinpath("3.15").glob("*.yml")
    }
    monkeypatch.setattr(history, "commit", lambda path, ref: BAD)
    monkeypatch.setattr(history, "version", lambda path, commit: (3, 15))
    monkeypatch.setattr(history, "read", lambda path, older, newer, hint="": history.History(path, (GOOD, BAD)))
    monkeypatch.setattr(effect_base, "find", lambda source, wanted="": effect_base.Base(f"{source}#{GOOD}"))
    monkeypatch.setattr(effect_base, "version", lambda source: (3, 15))
    monkeypatch.setattr(sources_folder, "read", lambda *arguments, **options: workflows)
    home = tmp_path / "home"
    shutil.copytree(prepared, home, symlinks=True)
    (home / "bug.py").write_text("print('all done')\n")
    archive.write(home / "bug.capsule", test_capsule.DESCRIPTION, test_capsule.MEMBERS)
    stencils = f"// $ build.py x86_64-pc-linux-gnu\n{example_effects.header(example_effects.PLAIN)}".encode()
    for name in ("jit_stencils-x86_64-unknown-linux-gnu.h", "jit_stencils.h", "pyconfig.h"):
        (home / name).write_bytes(b"// " + b"0" * 64 + b"\n" + stencils)
    about = replace(test_distribution.DESCRIPTION, version="3.15.0rc2", arch=Arch.AARCH64)
    distribution.write(home, about, {"jit_stencils.h": stencils}, b"")
    (home / "job.log").write_text("FAIL: test_a (test.test_b.Case.test_a)\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setenv("CROSSJIT_HOME", str(home / "state"))
    monkeypatch.setenv("CROSSJIT_STASH_REMOTE", (home / "shared").as_uri())
    monkeypatch.setenv("CROSSJIT_SIGNING_KEY", str(home / "key.pem"))
    monkeypatch.setenv("CROSSJIT_TRUST", str(home / "keys.toml"))
    monkeypatch.delenv("CROSSJIT_PREPARE", raising=False)
    monkeypatch.delenv("CROSSJIT_DEBUG", raising=False)
    monkeypatch.chdir(home)
    return home


def ended(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run crossjit's command line and return its exit code, and what it said."""
    monkeypatch.setattr(sys, "argv", ["crossjit", *argv])
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            program.run()
    except SystemExit as end:
        code = int(end.code or 0)
    err.flush()
    return code, err.buffer.getvalue().decode()


def problem(words: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return what is wrong with a command, None if nothing is."""
    name, *rest = words
    if name == ".venv/bin/python" and rest[0] in BENCHMARKS:
        BENCHMARKS[rest[0]]().parse_args(rest[1:])
        return None
    if name in SHELL or name.removeprefix(".venv/bin/") in PROGRAMS - {"crossjit", "invoke", "inv"}:
        return None
    if name not in OUR_PROGRAMS:
        return f"nothing checks {name}: is it a program that is installed with crossjit?"
    (run,) = (home / "state/runs").glob("2*")
    argv = [word.replace(EXAMPLE_RUN, run.name[: len(EXAMPLE_RUN)]) for word in rest]
    if argv and argv[0] in MAINTENANCE and "--check" not in argv:
        argv.append("--check")
    for source in (after for option, after in itertools.pairwise(argv) if option == "--source"):
        sources.parse(source)  # commands look at it after they found an engine
    code, said = ended(argv, monkeypatch)
    fine = (0, 1) if "check" in argv else (0,)  # 1: something is wrong with what it looked at
    return None if code in fine or (code == 3 and NO_ENGINE in said) else f"ended with {code}: {said}"


PROGRAMS = {each.name for each in importlib.metadata.entry_points(group="console_scripts")}


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_can_be_typed_as_it_stands(command: Shown, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem(command.words, home, monkeypatch) is None


@pytest.mark.parametrize(
    "line",
    [
        "./inv biuld",
        "./inv build --arhc aarch64",
        "./inv build --arch aarch65",
        "./inv validate --variant jit,nope",
        "./inv plan --recipe 3.12",
        "./inv validate --suite nope",
        "./inv validate --shard 5/3",
        "./inv build --strategy none",
        "./inv debug --cell 3.15/aarch64/jit",
        "./inv report 20200101 --html -",
        "./inv stash show 3.14/aarch64/jit",
        "./inv cells --format gitlab",
        ".venv/bin/nothing",
        "make install",
    ],
)
def test_a_command_that_is_wrong_is_found(line: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem(tuple(line.split()), home, monkeypatch) is not None


def test_a_source_that_is_none_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError):
        problem(("./inv", "build", "--source", "https://github.com/python/cpython"), home, monkeypatch)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("./inv plan --arch all    # what would be done", [("./inv", "plan", "--arch", "all")]),
        ("# only a remark", []),
        ("./inv plan --source 'a#b' --recipe c#d", [("./inv", "plan", "--source", "a#b", "--recipe", "c#d")]),
        ("source <(./inv --list)", [("source",), ("./inv", "--list")]),
        ('echo "cells=$(./inv cells)" >> "$OUTPUT"', [("./inv", "cells"), ("echo", "cells=$(./inv cells)")]),
    ],
)
def test_commands_are_read_as_a_shell_reads_them(line: str, found: list[tuple[str, ...]]) -> None:
    assert list(commands(line)) == found


def test_the_page_of_all_commands_is_current() -> None:
    page = docs.page(namespace)
    for name, text in docs.pages(namespace).items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, "`./inv docs` writes it"
    for name in namespace.task_names:
        section = page.partition(f"\n## {name.replace('.', ' ')}\n")[2].partition("\n## ")[0]
        assert all(re.search(rf"^\| `(\S+, )?{to_flag(flag)}[ ,`]", section, re.M) for flag in flags(name))


def test_the_pages_show_commands() -> None:
    assert {command.page for command in ALL} >= {"README.md", "CONTRIBUTING.md", "docs/usage.md", "docs/ci.md"}
    tasks = {name.partition(" ")[0] for command in ALL for name in [" ".join(command.words[1:])]}
    assert tasks >= {name.partition(".")[0] for name in namespace.task_names}, "each task is shown somewhere"


# What they name


@pytest.mark.parametrize("page", [page for page in PAGES if page != docs.PAGE])
def test_options_that_a_page_names_are_there(page: str) -> None:
    ours = {to_flag(name) for task in namespace.task_names for name in flags(task)}
    known = ours | {f"--{name}" for name in ("help", "list", "version", "print-completion-script")}
    for make in BENCHMARKS.values():
        known |= set(make()._option_string_actions)
    known |= {"--rounds", "--hypothesis-profile", "--upgrade"}  # pytest's and uv's
    named = {
        token.content.split()[0].partition("=")[0]
        for _, token in tokens(page)
        if token.type == "code_inline" and re.match(r"--[a-z]", token.content)
    }
    assert {name for name in named if not name.startswith(("--enable-", "--with"))} <= known


def flags(task: str) -> Iterator[str]:
    return (str(name) for argument in namespace[task].get_arguments() for name in argument.names)


FOLDERS = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page: str) -> None:
    named = {
        token.content
        for _, token in tokens(page)
        if token.type == "code_inline" and re.fullmatch(r"[\w.*/-]+", token.content) and "NAME" not in token.content
    }
    missing = [name for name in sorted(named) if name.startswith(FOLDERS) and not list(ROOT.glob(name.rstrip("/")))]
    assert missing == []


def code(page: str) -> set[str]:
    return {token.content for _, token in tokens(page) if token.type == "code_inline"}


def test_all_variants_suites_and_recipes_are_in_usage() -> None:
    recipes = recipe_documents.load_all(ROOT / "recipes")
    variants = {name for recipe in recipes.values() for name in recipe.variants}
    assert {*recipes, *variants, *suites.names()} <= code("docs/usage.md")


def test_all_settings_are_listed() -> None:
    texts = ((ROOT / name).read_text() for name in ("inv", "crossjit/settings.py"))
    read = {name for text in texts for name in re.findall(r"CROSSJIT_[A-Z_]+", text)} - {"CROSSJIT_INV_PYTHON"}
    listed = {name for name in code("docs/settings.md") if re.fullmatch(r"CROSSJIT_[A-Z_]+", name)}
    assert listed == read | {setting.variable for setting in SETTINGS}


@pytest.mark.parametrize("page", ["README.md", "docs/verdicts.md"])
def test_verdicts_end_with_the_codes_that_the_tables_say(page: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    cell = Cell("3.15", Arch.X86_64, "jit")
    assert {name: int(number) for name, number in rows} == {
        verdict.value: int(exit_code([CellResult(cell, verdict, ())])) for verdict in Verdict
    }


def test_the_readme_is_short_and_begins_with_what_a_newcomer_needs() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    beginning = "\n".join(lines[:40])
    assert len([command for command in shown(["README.md"]) if command.line <= 40]) == 2
    assert "A green means" in beginning
    assert "Where to go next" in beginning
