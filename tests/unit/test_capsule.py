"""Capsules: what is written is read again, and nothing else is; choosing a failure; replaying it."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit import PROJECT
from crossjit.capsule import archive, collect, document, replay
from crossjit.capsule.collect import Subject
from crossjit.capsule.document import CapsuleDocument, Place, Seen, SeenScript, SeenTest, Source
from crossjit.capsule.replay import Answer, Difference, Replayed
from crossjit.config import recipes
from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import ExitCode, UserError
from crossjit.images import Image, Package, Role
from crossjit.model import (
    Arch,
    Cell,
    CellResult,
    EmulationSupport,
    ModuleRun,
    Outcome,
    Strategy,
    SuiteResult,
    TestResult,
    Verdict,
)
from crossjit.pipeline import build_cell, plan, prepare, validate_cell
from crossjit.pipeline.context import CellRequest
from crossjit.report import capsule as report
from crossjit.report.terminal_style import TerminalStyle
from crossjit.runs.model import Run
from crossjit.settings import Settings
from crossjit.sources import trust
from crossjit.stash.manifest import SourceFacts
from crossjit.tasks import capsule as task
from crossjit.triage import rerun
from crossjit.triage.odds import Count
from crossjit.triage.rerun import RerunCounts, TestRerun
from crossjit.triage.user_script import Script
from crossjit.util import tar_zst
from crossjit.validation.failure import Failure
from crossjit.validation.target import Target
from tests import example_runs
from tests.unit.build_fakes import RecordingProgress

CELL = Cell("3.15", Arch.AARCH64, "jit")
SEGFAULT = "Fatal Python error: Segmentation fault\n\nuser_script.bug: killed by SIGSEGV"
FAILURE = Failure.of("crashed", SEGFAULT)
ALWAYS = Seen(how="crashed", kind=FAILURE.kind, reason=FAILURE.text, failed=5, ran=5)
SCRIPT = Script("bug.py", b"1/0\n", ("--size", "4"), status=3, text="ok", seconds=20)
SEEN = SeenScript.of(SCRIPT, {"PYTHON_JIT_STRESS": "1"}, ALWAYS, ())
TEST = TestRerun("test.test_dis.C.test_x", "jit", "module", "test_dis", match="x", env=(("A", "1"),), seconds=60)


def tree(*names: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Pack a tree as the stash does."""
    output = io.BytesIO()
    with tar_zst.compressed(output, level=1, workers=0) as stream, tar_zst.tar_writer(stream) as packed:
        for name in names or ("usr/local/bin/python3",):
            info = tarfile.TarInfo(name)
            info.type = kind
            packed.addfile(info)
    return output.getvalue()


DESCRIPTION = CapsuleDocument(
    schema=document.SCHEMA,
    crossjit="0.1.0",
    made="2026-11-30T10:00:00+00:00",
    recipe="3.15",
    arch=Arch.AARCH64,
    variant="jit",
    strategy="cross",
    source=Source(
        kind="archive",
        version="3.15.0rc2",
        origin="https://example.org/Python-3.15.0rc2.tar.xz",
        commit=None,
        digest="d" * 64,
        diff_digest=None,
        llvm="21",
        again="https://example.org/Python-3.15.0rc2.tar.xz",
    ),
    configure="--enable-experimental-jit",
    compiler="GCC 16",
    build_key="b" * 64,
    artifact="a" * 64,
    toolchain={"key": "t"},
    place=Place(
        image="crossjit/forky-target-arm64:123",
        key="k" * 64,
        release="r",
        packages=("libc6 arm64 2.42-1", "zlib1g arm64 1.3"),
        qemu="7.2.5",
        cpu="cortex-a72",
    ),
    members={},
    script=SEEN,
)
MEMBERS: Mapping[document.MemberName, Path | bytes] = {
    document.RECIPE: PROJECT / "recipes/3.15.toml",
    document.VARIANTS: PROJECT / "recipes/variants.toml",
    document.SCRIPT: SCRIPT.content,
    document.INSTALL: tree(),
    document.SUPPORT: tree("Tools/x"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A capsule with a script and a build."""
    path = tmp_path / "bug.capsule"
    archive.write(path, DESCRIPTION, MEMBERS)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def entries(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Read a capsule's members."""
    with path.open("rb") as file, tar_zst.decompressed(file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        return [(info, content.read() if (content := tar.extractfile(info)) else b"") for info in tar]


def rewrite(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Write a capsule with these members."""
    with (
        path.open("wb") as file,
        tar_zst.compressed(file, level=1, workers=0) as stream,
        tar_zst.tar_writer(stream) as tar,
    ):
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_what_is_written_is_read(path: Path, home: Path) -> None:
    with archive.opened(path, home) as capsule:
        assert capsule.document.script == SEEN
        assert capsule.document.cell == CELL
        assert capsule.document.has_artifact
        assert SEEN.script(capsule.member(document.SCRIPT).read_bytes()) == SCRIPT
        assert capsule.member(document.INSTALL).read_bytes() == MEMBERS[document.INSTALL]
        assert capsule.document == replace(DESCRIPTION, members=capsule.document.members)
        folder = capsule.folder
    assert not folder.exists()
    assert [each.name for each in path.parent.iterdir() if each.suffix == ".part"] == []
    assert SeenTest.of(TEST, ALWAYS).test == TEST


def changed(number: int) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]:
    """Change a byte of a member."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info, content = members[number]
        members[number] = (info, bytes([content[0] ^ 1]) + content[1:])

    return change


def described(**changes: Any) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]:
    """Change the description."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info, content = members[0]
        members[0] = (info, json.dumps({**json.loads(content), **changes}).encode())

    return change


def added(name: str, kind: bytes = tarfile.REGTYPE) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]:
    """Add a member."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        members.append((info, b""))

    return change


def with_install(content: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]:
    """Replace the build by a different one, with its digest."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        whole = json.loads(members[0][1])
        member = archive._describe(content)
        whole["members"][document.INSTALL] = {"size": member.size, "sha256": member.sha256}
        members[0] = (members[0][0], json.dumps(whole).encode())
        members[4] = (members[4][0], content)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((changed(number), "is not as described: it was changed") for number in range(1, 6)),
        (lambda members: members.pop(), r"is not whole: support\.tar\.zst"),
        (lambda members: members.pop(0), "does not begin with capsule.json"),
        (lambda members: members.clear(), "is not whole: it is empty"),
        (lambda members: members.append(members[1]), "a member that it does not describe: 'recipe.toml'"),
        (added("../../escape"), r"does not describe: '\.\./\.\./escape'"),
        (added("/etc/escape"), "does not describe: '/etc/escape'"),
        (added("script2", tarfile.SYMTYPE), "a member that is not a file: 'script2'"),
        (added("script2", tarfile.LNKTYPE), "a member that is not a file: 'script2'"),
        (added("script2", tarfile.CHRTYPE), "a member that is not a file: 'script2'"),
        (described(schema=2), "has schema 2, this crossjit reads up to 1"),
        (described(schema="1"), "schema: Input should be a valid integer"),
        (described(arch="pdp11"), "arch: Input should be"),
        (described(recipe="../x"), "recipe: String should match"),
        (described(extra=1), "extra: "),
        (described(members={"/etc/passwd": {"size": 1, "sha256": "0" * 64}}), "members"),
        (described(script=None), "it lacks the recipe, or what failed"),
        (described(script={**json.loads(document.dump(DESCRIPTION))["script"], "name": "../../x.py"}), "script.name"),
        (described(source={**json.loads(document.dump(DESCRIPTION))["source"], "again": "/home/me#main"}), "again"),
        (with_install(tree("etc/passwd")), "has etc/passwd, outside of usr/local"),
        (with_install(tree("usr/local/../../x")), "is not a tree of a build"),
        (with_install(tree("/usr/local/x")), "is not a tree of a build"),
        (with_install(tree("usr/local/null", kind=tarfile.CHRTYPE)), "is neither file, folder nor link"),
        (with_install(b"no tree"), "is not a tree of a build"),
    ],
)
def test_a_capsule_that_was_tampered_with_is_refused(
    path: Path, home: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object], message: str
) -> None:
    members = entries(path)
    change(members)
    rewrite(path, members)
    with pytest.raises(UserError, match=message) as refused, archive.opened(path, home):
        pytest.fail("it was opened")
    assert refused.value.exit_code == ExitCode.USER
    assert refused.value.hint
    assert [each for each in (home / archive.FOLDER).iterdir() if each.is_dir()] == []


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, None])
def test_a_file_that_is_no_capsule(tmp_path: Path, home: Path, content: bytes | None) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged|is empty|cannot be read"), archive.opened(path, home):
        pytest.fail("it was opened")


def test_a_capsule_that_was_cut_off(path: Path, home: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="is damaged"), archive.opened(path, home):
        pytest.fail("it was opened")


def test_a_capsule_is_bounded_before_it_is_written(path: Path, home: Path) -> None:
    budget = replace(archive._BUDGET, tree=1000)
    with pytest.raises(UserError, match="more than 1,000 bytes"), archive.opened(path, home, budget):
        pytest.fail("it was opened")
    assert [each for each in (home / archive.FOLDER).iterdir() if each.is_dir()] == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.capsule"
    path.write_bytes(b"before")
    members: dict[document.MemberName, Path | bytes] = {**MEMBERS, document.SUPPORT: tmp_path}
    with pytest.raises(OSError, match="directory"):
        archive.write(path, DESCRIPTION, members)
    assert path.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [path]


# Collecting


def test_a_source_that_any_machine_can_get() -> None:
    recipe = recipes.find("3.15", PROJECT / "recipes")
    assert isinstance(recipe.source, recipes.Archive)
    digest = recipe.source.sha256
    mirror = SourceFacts("archive", digest, "/mirror/Python.tar.xz")
    assert collect.source_again(mirror, recipe).startswith("https://www.python.org/")
    assert collect.source_again(replace(mirror, digest="0" * 64), recipe) == ""
    git = SourceFacts("git", "0" * 64, "https://example.org/cpython", commit="c" * 40)
    assert collect.source_again(git, recipe) == f"https://example.org/cpython#{'c' * 40}"
    assert collect.source_again(replace(git, origin="/home/me/cpython"), recipe) == ""
    assert collect.source_again(replace(git, diff_digest="1"), recipe) == ""


def test_the_record_of_a_script(tmp_path: Path) -> None:
    subject = Subject(CELL, "abc", "7.2", "max", SEEN, SCRIPT.content)
    assert collect.recorded(tmp_path, CELL) is None
    collect.record(tmp_path / "cell", subject)
    assert collect.recorded(tmp_path / "cell", CELL) == subject
    (tmp_path / "cell" / collect.SEEN).write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        collect.recorded(tmp_path / "cell", CELL)


def test_the_failed_tests_of_a_run() -> None:
    variant = recipes.find("3.15", PROJECT / "recipes").variants["jit"]
    env = TargetEnvironment((3, 15), Arch.AARCH64, variant, emulated=True, cpu="max", qemu="7.2")
    outcomes = {"test_a": Outcome.CRASHED, "test_b": Outcome.FAILED, "test_c": Outcome.PASSED}
    results = tuple(
        TestResult("jit", f"test.test_dis.C.{name}", outcome, message="E: x") for name, outcome in outcomes.items()
    )
    known = TestResult("jit", "test.test_dis.C.test_d", Outcome.FAILED, known="because")
    modules = (ModuleRun("test_dis", "", 1.0, "exit status 2", "x.log"),)
    suite = SuiteResult("jit", (*results, known), 1.0, modules=modules, conditions=env.facts())
    result = CellResult(CELL, Verdict.FAIL, (), artifact="abc", suites=(suite,))
    subject = collect.of_result(result, variant)
    assert subject is not None
    assert (subject.cell, subject.artifact, subject.qemu, subject.cpu) == (CELL, "abc", "7.2", "max")
    assert [(test.name, test.module, test.seen.how) for test in subject.tests] == [
        ("test.test_dis.C.test_a", "test_dis", "crashed"),
        ("test.test_dis.C.test_b", "test_dis", "failed"),
    ]
    assert collect.of_result(replace(result, suites=(replace(suite, results=(known,)),)), variant) is None


def test_one_failure_is_chosen() -> None:
    other = replace(CELL, arch=Arch.X86_64)
    subjects = [Subject(CELL, "a", None, None), Subject(other, "b", None, None)]
    assert collect.choose(subjects, other, "r") is subjects[1]
    assert collect.choose(subjects[:1], None, "r") is subjects[0]
    with pytest.raises(UserError, match="failures in 2 cells") as several:
        collect.choose(subjects, None, "r")
    assert several.value.hint == "choose one: --cell 3.15/aarch64/jit"
    with pytest.raises(UserError, match=r"nothing failed in 3\.15/x86_64/jit in run r"):
        collect.choose(subjects[:1], other, "r")


# Replaying


class World:
    """A machine on which tests end as told, a list of outcomes for each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *outcomes: tuple[Count, str]) -> None:
        packages = (Package("libc6", "arm64", "2.43-1"), Package("zlib1g", "arm64", "1.3"))
        self.image = Image("crossjit/forky-target-arm64:9", "i", "k" * 64, Role.TARGET, Arch.AARCH64, "b", packages)
        self.outcomes = list(outcomes)
        self.ran: list[tuple[Any, TestRerun, int, Path]] = []
        self.folder = tmp_path / "replay"
        monkeypatch.setattr(rerun, "run", self.run)
        spec = SimpleNamespace(name="forky")
        spec.having = lambda packages: spec
        self.ctx: Any = SimpleNamespace(
            require_emulator=lambda arch: None,
            images=(spec,),
            ensure_image=lambda spec, role, arch: self.image,
            run="run",
            labels={},
            emulation=lambda arch, cpu: {"QEMU_CPU": cpu or "cortex-a72"},
            qemu_version=lambda arch: "7.2.5",
            progress=RecordingProgress(),
            engine=None,
            ability=EmulationSupport(Arch.X86_64, {}),
        )

    def run(
        self, engine: object, target: Any, tests: Sequence[TestRerun], times: int, *, folder: Path, **more: object
    ) -> dict[TestRerun, RerunCounts]:
        (test,) = tests
        self.ran.append((target, test, times, folder))
        count, message = self.outcomes.pop(0)
        return {test: RerunCounts(count, message)}

    def replay(self, path: Path, home: Path) -> list[Difference | Replayed]:
        with archive.opened(path, home) as capsule:
            return list(replay.replay(self.ctx, capsule, self.folder))


@pytest.mark.parametrize(
    ("count", "message", "answer"),
    [
        (Count(failed=5, crashed=5), f"0x12\n{SEGFAULT}", Answer.SAME),
        (Count(failed=1, crashed=1, passed=4), SEGFAULT, Answer.SAME),
        (Count(failed=5, crashed=5), "Assertion `x' failed", Answer.DIFFERENT),
        (Count(failed=5), SEGFAULT, Answer.DIFFERENT),
        (Count(failed=5, hung=5), "", Answer.DIFFERENT),
        (Count(passed=5), "", Answer.PASSES),
        (Count(absent=5), "", Answer.ABSENT),
    ],
)
def test_whether_the_same_happens(
    path: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: Count,
    message: str,
    answer: Answer,
) -> None:
    world = World(monkeypatch, tmp_path, (count, message))
    found = world.replay(path, home)
    (replayed,) = (each for each in found if isinstance(each, Replayed))
    assert replayed.answer is answer
    target, test, times, folder = world.ran[0]
    assert (times, dict(test.env), test.seconds) == (5, {"PYTHON_JIT_STRESS": "1"}, 20)
    assert target.files == SCRIPT.files
    assert target.emulation == {"QEMU_CPU": "cortex-a72"}
    assert folder.is_relative_to(world.folder)
    differences = [each for each in found if isinstance(each, Difference)]
    assert [each.here for each in differences] == ["1 package: libc6 arm64 2.42-1 → 2.43-1"]
    code = task._show_replay(DESCRIPTION, found, json=False)
    assert code == (ExitCode.PASS if answer is Answer.SAME else ExitCode.PRODUCT)
    assert f"the same happens here for {int(answer is Answer.SAME)} of 1 failure" in capsys.readouterr().out
    whole = report.replayed_as_json(DESCRIPTION, [replayed], differences)
    assert whole["same"] is (answer is Answer.SAME)


def test_a_rare_failure_is_awaited(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = replace(ALWAYS, failed=2, ran=10)
    path = tmp_path / "rare.capsule"
    archive.write(path, replace(DESCRIPTION, script=replace(SEEN, seen=rare)), MEMBERS)
    late = [(Count(passed=5), "")] * 4 + [(Count(passed=4, failed=1, crashed=1), SEGFAULT)]
    world = World(monkeypatch, tmp_path, *late)
    (replayed,) = (each for each in world.replay(path, home) if isinstance(each, Replayed))
    assert replayed.answer is Answer.SAME
    assert replayed.count == Count(passed=24, failed=1, crashed=1)
    never = World(monkeypatch, tmp_path, *[(Count(passed=5), "")] * 40)
    (replayed,) = (each for each in never.replay(path, home) if isinstance(each, Replayed))
    assert replayed.answer is Answer.PASSES
    assert replayed.count.passed >= 80
    assert len({folder for _, _, _, folder in never.ran}) == len(never.ran)


def test_tests_of_a_suite(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tests.capsule"
    hostile = replace(TEST, name="../../../../etc/cron.d/x")
    tests = (SeenTest.of(TEST, ALWAYS), SeenTest.of(hostile, ALWAYS))
    members = {name: member for name, member in MEMBERS.items() if name != document.SCRIPT}
    archive.write(path, replace(DESCRIPTION, script=None, tests=tests), members)
    world = World(monkeypatch, tmp_path, *[(Count(failed=5, crashed=5), SEGFAULT)] * 2)
    found = [each for each in world.replay(path, home) if isinstance(each, Replayed)]
    assert [each.answer for each in found] == [Answer.SAME, Answer.SAME]
    assert [test for _, test, _, _ in world.ran] == [TEST, hostile]
    assert all(".." not in folder.parts and folder.is_relative_to(world.folder) for _, _, _, folder in world.ran)
    text = report.replayed_as_text(DESCRIPTION, found, [], style=TerminalStyle())
    assert "the same happens here for 2 of 2 failures" in text


def test_a_capsule_without_a_build_is_built_in_a_domain_of_its_own(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.capsule"
    members = {name: member for name, member in MEMBERS.items() if not name.endswith(".zst")}
    archive.write(path, DESCRIPTION, members)
    world = World(monkeypatch, tmp_path, (Count(failed=5, crashed=5), SEGFAULT))
    requests: list[CellRequest] = []
    source = SimpleNamespace(digest="e" * 64)
    built = SimpleNamespace(artifact=SimpleNamespace(manifest=SimpleNamespace(source=source)))
    variant = recipes.find("3.15", PROJECT / "recipes").variants["jit"]
    target = Target(world.image, "a", None, CELL, variant, (3, 15), "t", {}, emulation={"QEMU_CPU": "max"})  # type: ignore[arg-type]
    monkeypatch.setattr(plan, "choose_strategy", lambda *arguments: Strategy.CROSS)

    def prepared(ctx: object, wanted: Sequence[CellRequest]) -> Sequence[CellRequest]:
        requests.extend(wanted)
        return wanted

    monkeypatch.setattr(prepare, "prepare", prepared)
    monkeypatch.setattr(build_cell, "build_cell", lambda ctx, prepared, log: built)
    monkeypatch.setattr(validate_cell, "target_of", lambda *arguments: target)
    found = world.replay(path, home)
    (request,) = requests
    assert request.source == DESCRIPTION.source.again
    assert trust.is_stranger(trust.domain_of(str(request.source)))
    assert (request.image, request.cpu, request.cell) == ("forky", "cortex-a72", CELL)
    differences = {each.what: each.here for each in found if isinstance(each, Difference)}
    assert differences["source"] == "e" * 64
    assert differences["CPU model"] == "max"
    assert [each.answer for each in found if isinstance(each, Replayed)] == [Answer.SAME]


def test_an_image_that_is_not_known(path: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, tmp_path)
    world.ctx.images = ()
    with pytest.raises(UserError, match="target image is not known here"):
        world.replay(path, home)
    assert world.ran == []


# The commands


@pytest.fixture
def run_of_a_script(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run in which a script failed, as the only one."""
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    run = example_runs.record(settings, example_runs.results()[:1], also=())
    collect.record(run.cell_folder(run.cells[0]), Subject(run.cells[0], "0" * 12, None, None, SEEN, SCRIPT.content))
    return run


def test_a_build_that_is_gone(run_of_a_script: Run) -> None:
    with pytest.raises(UserError, match="is no longer in the stash"):
        task._of_run(["last"], "")


def test_a_run_without_a_failure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    passed = example_runs.results()[:1]
    passed = tuple(replace(each, suites=()) for each in passed)
    run = example_runs.record(settings, passed, also=())
    with pytest.raises(UserError, match="nothing failed"):
        task._of_run([run.id], "")


def test_a_build_is_left_out_only_if_it_can_be_made_again(tmp_path: Path) -> None:
    recipe = recipes.find("3.15", PROJECT / "recipes")
    manifest = SimpleNamespace(
        source=SourceFacts("checkout", "0" * 64, "/home/me/cpython", commit="c", diff_digest="d"),
        version="3.15.0",
        images={},
        strategy=SimpleNamespace(value="native"),
        configure="",
        compiler=None,
    )
    objects = {"install": tmp_path / "i", "support": tmp_path / "s"}
    artifact: Any = SimpleNamespace(manifest=manifest, key="b" * 64, full_id="a" * 64, objects=objects)
    subject = Subject(CELL, "a", None, None, SEEN, SCRIPT.content)
    with pytest.raises(UserError, match="which no other machine has"):
        collect.describe(subject, artifact, recipe, tmp_path, shared=tmp_path, with_artifact=False)
    found, members = collect.describe(subject, artifact, recipe, tmp_path, shared=tmp_path, with_artifact=True)
    assert found.source.again == ""
    assert members[document.INSTALL] == tmp_path / "i"
    assert members[document.SCRIPT] == SCRIPT.content


# Fuzzing


@given(st.integers(0, 10_000), st.integers(0, 7), st.binary(max_size=40))
def test_damage_anywhere_is_an_error_for_users(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, more: bytes
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "x.capsule"
    archive.write(path, DESCRIPTION, MEMBERS)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content + more)
    try:
        with archive.opened(path, folder) as capsule:
            # a bit of the compressed stream's header may not matter
            assert capsule.document == replace(DESCRIPTION, members=capsule.document.members)
    except UserError as error:
        assert error.hint
    assert [each for each in (folder / archive.FOLDER).iterdir() if each.is_dir()] == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(document.dump(DESCRIPTION)))), _JSON)
def test_a_wrong_value_anywhere_is_an_error_for_users(key: str, value: object) -> None:
    whole = json.loads(document.dump(replace(DESCRIPTION, members={})))
    with contextlib.suppress(UserError):
        document.parse(json.dumps({**whole, key: value}).encode())
        pytest.fail("a description without members was accepted")
