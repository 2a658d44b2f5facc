from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossjit.build import execute, layout, logic
from crossjit.build.container import cache_environment, cache_report, jobs_for, open_container, populate, scripts
from crossjit.build.execute import relevant_lines, run_build
from crossjit.build.layout import BUILD, INSTALL, ROOT, SOURCE
from crossjit.build.spec import BuildSpec, make_spec
from crossjit.engine.base import Container, EngineFacts
from crossjit.errors import BuildError, EngineError, ExitCode, InfrastructureError, OutOfMemoryError
from crossjit.images import Image, Package, Role
from crossjit.model import Arch, Expectation, Strategy, Variant
from crossjit.progress import Silent, SilentStep
from crossjit.sources import Kind, Source
from crossjit.util.budget import BudgetError
from tests.fakes.engine import FakeEngine, FakeProcess, Fault

JIT = Variant("jit", "the JIT", ("--enable-experimental-jit=yes",), ("jit",), expects=Expectation.MACHINE_CODE)
FT = Variant("ft", "no GIL", ("--disable-gil",), ("ft-smoke",), free_threaded=True)
FACTS = EngineFacts("fake", "1", "1", Arch.X86_64, cores=2, memory=8 << 30)


def toolchain(**changes: Any) -> Image:
    image = Image(
        reference="toolchain",
        id="sha256:1",
        key="k" * 64,
        role=Role.TOOLCHAIN,
        arch=Arch.X86_64,
        base="bootstrap:forky",
        packages=(Package("gcc-16", "amd64", "16.2.0-3"), Package("clang-21", "amd64", "1:21.1.8-13")),
    )
    return replace(image, **changes)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    archive = tmp_path / "Python-3.15.0rc2.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("Python-3.15.0rc2/configure", "Python-3.15.0rc2/Tools/jit/build.py"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return Source(
        kind=Kind.ARCHIVE,
        version="3.15.0rc2",
        python=(3, 15),
        digest="d" * 64,
        archive=archive,
        top="Python-3.15.0rc2",
        origin="somewhere",
        llvm="21",
    )


class TestTheBuildKey:
    def test_depends_on_nothing_but_what_is_built(self, source: Source) -> None:
        one = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        other = make_spec(
            replace(source, origin="elsewhere", archive=Path("moved.tar")),
            replace(JIT, summary="in other words", suites=()),
            Arch.X86_64,
            Strategy.NATIVE,
            toolchain(id="sha256:2", reference="another tag"),
        )
        assert one.key == other.key
        assert len(one.key) == 64

    def test_depends_on_all_that_decides_the_output(self, source: Source) -> None:
        def key(
            source: Source = source,
            variant: Variant = JIT,
            arch: Arch = Arch.AARCH64,
            strategy: Strategy = Strategy.CROSS,
            image: Image | None = None,
            python: str | None = "p",
        ) -> str:
            return make_spec(source, variant, arch, strategy, image or toolchain(), build_python=python).key

        keys = [
            key(),
            key(source=replace(source, digest="e" * 64)),
            key(source=replace(source, llvm="22")),
            key(source=replace(source, regenerate=("regen-cases",))),
            key(variant=FT),
            key(arch=Arch.X86_64),
            key(strategy=Strategy.EMULATE),
            key(image=toolchain(key="other")),
            key(image=toolchain(packages=(Package("gcc-16", "amd64", "16.2.0-4"),))),
            key(python="q"),
        ]
        assert len(set(keys)) == len(keys)


class TestOurPartInIt:
    """A fix of ours finds nothing that was made before it, in the stash or in the caches."""

    def test_is_all_that_toolchain_has(self) -> None:
        listed = {path.name for path in logic.scripts()}
        assert listed == {path.name for path in layout.SCRIPTS.iterdir() if path.is_file()}
        with scripts("21") as stream, tarfile.open(fileobj=stream) as tar:
            assert {Path(each.name).name for each in tar if each.isfile()} <= listed

    @pytest.mark.parametrize("name", [path.name for path in (*logic.scripts(), *logic.MODULES)])
    def test_is_each_file(self, tmp_path: Path, name: str) -> None:
        files = [*logic.scripts(), *logic.MODULES]
        (changed,) = (path for path in files if path.name == name)
        shutil.copy(changed, tmp_path)
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        others = [tmp_path / name if path == changed else path for path in files]
        assert logic.digest(others) != logic.digest(files) == logic.whole_digest()

    def test_is_in_the_keys(self, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        caches = cache_environment(spec, cached=True)
        assert logic.scripts_digest() in caches["CROSSJIT_TOOLCHAIN"]
        assert logic.scripts_digest() in caches["CCACHE_COMPILERCHECK"]
        monkeypatch.setattr(logic, "whole_digest", lambda: "another")
        changed = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        assert changed.key != spec.key
        assert replace(changed, core="c").base_key != replace(spec, core="c").base_key


class TestTheCoreKey:
    """What builds have in common of which one can be made of another."""

    def base_key(self, source: Source, variant: Variant = JIT, **changes: Any) -> str | None:
        changed = replace(source, **{"kind": Kind.CHECKOUT, "core": "c", **changes})
        return make_spec(changed, variant, Arch.X86_64, Strategy.NATIVE, toolchain()).base_key

    def test_does_not_depend_on_tests(self, source: Source) -> None:
        assert self.base_key(source) == self.base_key(source, digest="e" * 64)
        assert self.base_key(source) == self.base_key(source, kind=Kind.GIT, commit="abc")

    def test_depends_on_all_else(self, source: Source) -> None:
        keys = [
            self.base_key(source),
            self.base_key(source, core="d"),
            self.base_key(source, llvm="22"),
            self.base_key(source, variant=FT),
        ]
        assert len(set(keys)) == len(keys)

    def test_is_not_there_where_the_rest_may_depend_on_tests(self, source: Source) -> None:
        assert self.base_key(source, core="") is None
        assert self.base_key(source, kind=Kind.ARCHIVE) is None
        assert self.base_key(source, regenerate=("regen-cases",)) is None

    def test_changes_no_build_key(self, source: Source) -> None:
        checkout = replace(source, kind=Kind.CHECKOUT)
        spec = make_spec(checkout, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        assert replace(spec, core="c").key == spec.key


class TestThePythonThatCompilesTheLibrary:
    """Which builds may take each other's .pyc files."""

    def python(self, source: Source, variant: Variant = JIT, strategy: Strategy = Strategy.NATIVE) -> str:
        return make_spec(source, variant, Arch.X86_64, strategy, toolchain()).python

    def test_is_the_same_for_plain_builds(self, source: Source) -> None:
        ours = self.python(source)
        assert self.python(source, replace(JIT, configure=())) == ours
        assert self.python(source, FT, Strategy.CROSS) == self.python(source, JIT, Strategy.CROSS), (
            "it is not of the cell"
        )

    def test_is_another_for_others(self, source: Source) -> None:
        debug = replace(JIT, configure=(*JIT.configure, "--with-pydebug"), debug=True)
        flags = replace(JIT, configure=(*JIT.configure, "CFLAGS=-DOTHER"))
        assert len({self.python(source, variant) for variant in (JIT, FT, debug, flags)}) == 4
        assert make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain(key="o")).python != self.python(source)
        assert self.python(source, JIT, Strategy.CROSS) != self.python(source), (
            "it is installed, not in its build folder"
        )

    def test_does_not_depend_on_tests(self, source: Source) -> None:
        one, other = replace(source, core="c"), replace(source, core="c", digest="e" * 64)
        assert self.python(one) == self.python(other)
        assert self.python(one) != self.python(replace(other, core="d"))
        assert self.python(one) != self.python(replace(one, regenerate=("regen-cases",)))


class TestTheConfigureLine:
    def test_of_a_native_build_names_no_machine(self, source: Source) -> None:
        line = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain()).configure_line
        assert line.startswith(f"{SOURCE}/configure --prefix=/usr/local ")
        assert "--enable-experimental-jit=yes" in line
        assert "--host" not in line
        assert "CC=" not in line

    def test_of_a_cross_build_names_both_machines_and_its_python(self, source: Source) -> None:
        spec = make_spec(source, JIT, Arch.AARCH64, Strategy.CROSS, toolchain(), build_python="p")
        words = spec.configure_line.split()
        assert "--build=x86_64-linux-gnu" in words
        assert "--host=aarch64-linux-gnu" in words
        assert "CC=aarch64-linux-gnu-gcc" in words
        assert f"--with-build-python={ROOT}/python/usr/local/bin/python3.15" in words
        assert spec.environment["PKG_CONFIG_LIBDIR"].startswith("/usr/lib/aarch64-linux-gnu/pkgconfig")

    def test_llvm_is_looked_for_only_where_the_variant_needs_it(self, source: Source) -> None:
        assert "LLVM_TOOLS_INSTALL_DIR" in make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain()).environment
        without = make_spec(source, FT, Arch.X86_64, Strategy.NATIVE, toolchain())
        assert without.llvm is None
        assert "LLVM_TOOLS_INSTALL_DIR" not in without.environment


@pytest.mark.parametrize(
    ("wanted", "cores", "memory", "expected"), [(0, 2, 8 << 30, 2), (0, 16, 4 << 30, 4), (0, 4, 1, 1), (7, 2, 1, 7)]
)
def test_jobs_fit_cores_and_memory_unless_the_user_knows_better(
    wanted: int, cores: int, memory: int, expected: int
) -> None:
    assert jobs_for(replace(FACTS, cores=cores, memory=memory), wanted) == expected


class TestRelevantLines:
    def test_short_output_is_shown_whole(self) -> None:
        assert relevant_lines(["a", "error: b", "c"]) == ("a", "error: b", "c")

    def test_the_first_trouble_is_shown_with_the_end(self) -> None:
        lines = [f"line {n}" for n in range(300)]
        lines[100] = "compile.c:3: error: no"
        shown = relevant_lines(lines, limit=10)
        assert "compile.c:3: error: no" in shown
        assert shown[-1] == "line 299"
        assert "…" in shown
        assert len(shown) <= 11

    def test_without_trouble_the_end_is_shown(self) -> None:
        assert relevant_lines([str(n) for n in range(100)], limit=3) == ("97", "98", "99")


class Steps(Silent):
    """Keeps what steps say."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.updates: list[tuple[int | None, int | None, str]] = []

    @contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[SilentStep]:
        self.names.append(name)
        updates = self.updates

        class Step(SilentStep):
            def update(
                self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
            ) -> None:
                updates.append((done, total, detail))

        yield Step()


LLVM_NAMES = (
    "clang",
    "clang-21",
    "llvm-dwarfdump",
    "llvm-objdump",
    "llvm-objdump-21",
    "llvm-readobj",
    "llvm-readobj-21",
)

COMPILE = ("gcc -c -o Objects/a.o a.c", "gcc -c -o Objects/b.o b.c")


def make(process: FakeProcess) -> int:
    if "-n" in process.argv:
        for line in (*COMPILE, "if test; then :; fi"):
            process.write_line(line)
    elif "install" in process.argv:
        process.write_file(f"{INSTALL}/usr/local/bin/python3", b"python")
    else:
        for line in COMPILE:
            process.write_line(line)
    return 0


def succeed(process: FakeProcess) -> int:
    process.write_line("checking for gcc... gcc")
    return 0


def python(process: FakeProcess) -> int:
    """Stand for toolchain/run_alongside.py and build_cache.py: what they are to run is run, and the rest is told."""
    assert process.argv[1] in (f"{layout.TOOLS}/run_alongside.py", f"{layout.TOOLS}/build_cache.py")
    process.files.read(process.argv[1])
    if "--" in process.argv:
        return process.run(process.argv[process.argv.index("--") + 1 :])
    return 0


def engine_with(**programs: Any) -> FakeEngine:
    engine = FakeEngine(
        programs={
            "configure": succeed,
            "make": make,
            "gcc": succeed,
            "sh": succeed,
            "python3": python,
            "python": succeed,
            **programs,
        },
        arch=Arch.X86_64,
    )
    engine.add_image("toolchain", arch=Arch.X86_64)
    return engine


def test_the_caches_are_asked_how_often_they_had_an_answer(source: Source) -> None:
    for said, expected in (("{}", {}), ('{"compiler": {"hit": 3, "miss": 1}}', {"compiler": (3, 1)}), ("no", {})):
        engine = engine_with(python3=lambda process, said=said: process.write_line(said) or 0)
        spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        opened = open_container(engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={})
        with opened as container:
            assert cache_report(container) == expected


def test_a_dry_run_that_says_more_than_any_build_is_not_kept(source: Source) -> None:
    def talkative(process: FakeProcess) -> int:
        if "-n" in process.argv:
            for number in range(1000):
                process.write_line(f"gcc -c -o {number}.o {'x' * 60_000}")
        return make(process) if "install" in process.argv else 0

    tracemalloc.start()
    try:
        compiled(engine_with(make=talkative), source, io.StringIO())
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_dry_run_without_an_end_is_the_sources_fault(source: Source) -> None:
    def endless(process: FakeProcess) -> int:
        while "-n" in process.argv:
            process.write_line("x" * (1 << 20))
        return make(process)

    with pytest.raises(BudgetError, match="make wrote more than") as caught:
        compiled(engine_with(make=endless), source, io.StringIO())
    assert caught.value.exit_code == ExitCode.PRODUCT


def compiled_in(container: Container, spec: BuildSpec, source: Source, **options: Any) -> execute.BuildResult:
    return run_build(container, spec, unpack=partial(populate, container, spec, source), **options)


def compiled(
    engine: FakeEngine, source: Source, log: io.StringIO, progress: Silent | None = None
) -> execute.BuildResult:
    spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
    with open_container(engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}) as container:
        return compiled_in(container, spec, source, subject="cell", jobs=2, log=log, progress=progress or Silent())


class TestCompiling:
    def test_runs_the_commands_in_order_and_times_them(self, source: Source) -> None:
        engine, log, steps = engine_with(), io.StringIO(), Steps()
        built = compiled(engine, source, log, steps)
        assert list(built.seconds) == ["unpack", "configure", "make", "install", "compile", "support"]
        assert "$ cd /crossjit/build && /crossjit/src/configure" in log.getvalue()
        assert steps.names == list(built.seconds)
        assert "$ cd /crossjit/build && make -j2" in log.getvalue()
        assert "exit status 0" in log.getvalue()

    def test_what_is_stale_is_made_anew_before_anything_is_compiled(self, source: Source) -> None:
        """In a copy of the source that the builder may write to; the caches are asked afterwards."""

        def copy(process: FakeProcess) -> int:
            assert process.uid == layout.BUILDER
            process.files.move(*process.argv[-2:])
            return 0

        engine, log, steps = engine_with(cp=copy), io.StringIO(), Steps()
        stale = replace(source, regenerate=("regen-cases", "regen-frozen FREEZE_MODULE="))
        built = compiled(engine, stale, log, steps)
        assert list(built.seconds)[:4] == ["unpack", "configure", "regenerate", "make"]
        assert steps.names[:5] == ["unpack", "configure", "regenerate", "regenerate", "make"]
        assert (None, None, "regen-cases") in steps.updates
        assert "$ cd /crossjit/build && make regen-frozen FREEZE_MODULE= -j2" in log.getvalue()
        ran = [command.argv for command in engine.commands if command.argv[0] in ("make", "python3", "cp")]
        order = [ran.index(("make", "regen-cases", "-j2"))]
        order += [number for number, argv in enumerate(ran) if "before-make" in argv]
        order += [ran.index(("make", "-j2"))]
        assert order == sorted(order)
        assert ran[0][-1] == SOURCE

    def test_the_library_is_compiled_ahead_while_install_leaves_cores_idle(self, source: Source) -> None:
        for ahead, jobs in (((), 1), (("--jobs", "2"), 3)):
            engine = engine_with()
            spec = make_spec(source, FT, Arch.X86_64, Strategy.NATIVE, toolchain())
            with open_container(engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}) as container:
                log = io.StringIO()
                compiled_in(container, spec, source, subject="cell", jobs=jobs, log=log, progress=Silent())
            assert "\n$ cd /crossjit/build && make install DESTDIR" in log.getvalue(), "that is what decides"
            (install,) = [command.argv for command in engine.commands if "install" in command.argv]
            beside = install[: install.index("make")]
            assert bool(beside) is bool(ahead)
            if beside:
                end = ("--ahead", f"{SOURCE}/Lib", "--library", "python3.15t", *ahead, "--")
                assert beside[1] == f"{layout.TOOLS}/run_alongside.py"
                assert beside[-len(end) :] == end
                compiling = next(command.argv for command in spec.commands if command.phase == "compile")
                assert beside[2 : -len(end)] == compiling

    def test_a_cross_builds_library_is_compiled_ahead_while_it_is_configured(self, source: Source) -> None:
        spec = make_spec(source, JIT, Arch.AARCH64, Strategy.CROSS, toolchain(), build_python="p")
        assert spec.ahead
        assert spec.ahead.phases == ("configure", "install")
        assert spec.ahead.argv[-1] == "python3.15"

    def test_nothing_is_compiled_ahead_where_python_leaves_files_in_the_source(self, source: Source) -> None:
        """What a Python compiles follows from whether it found its own modules compiled."""
        stale = replace(source, regenerate=("regen-cases",))
        assert make_spec(stale, JIT, Arch.X86_64, Strategy.NATIVE, toolchain()).ahead is None

    def test_what_is_done_ahead_decides_nothing(self, source: Source) -> None:
        spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        without = replace(spec, ahead=None)
        assert (spec.key, spec.base_key) == (without.key, without.base_key)

    def test_what_stands_for_llvm_is_compiled_where_it_is_needed(self, source: Source) -> None:
        """By the image's own compiler, not through ccache."""

        def compile_it(process: FakeProcess) -> int:
            assert process.uid == layout.BUILDER
            compiled, read = process.argv[-2:]
            process.write_file(compiled, b"of " + process.files.read(read), mode=0o755)
            return 0

        for variant, compiling in ((JIT, 1), (FT, 0)):
            engine = engine_with(gcc=compile_it)
            spec = make_spec(source, variant, Arch.X86_64, Strategy.NATIVE, toolchain())
            with open_container(engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}) as container:
                populate(container, spec, source)
                assert [command.argv[0] for command in engine.commands].count("/usr/bin/gcc") == compiling
                if compiling:
                    files = engine.containers[container.id].files
                    expected = b"of " + (layout.SCRIPTS / "llvm_cache.c").read_bytes()
                    assert {files.read(f"{layout.LLVM}/bin/{name}") for name in LLVM_NAMES} == {expected}

    def test_compilers_are_run_through_the_script_that_stands_for_them(self, source: Source) -> None:
        engine = engine_with()
        spec = make_spec(source, FT, Arch.X86_64, Strategy.NATIVE, toolchain())
        with open_container(engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}) as container:
            populate(container, spec, source)
            files = engine.containers[container.id].files
            names = ("gcc", "g++", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
            expected = (layout.SCRIPTS / "compiler.sh").read_bytes()
            assert {files.read(f"{layout.COMPILERS}/{name}") for name in names} == {expected}
        folders = spec.environment["PATH"].split(":")
        assert folders.index(layout.COMPILERS) < folders.index("/usr/bin")
        assert "/usr/lib/ccache" not in folders, "configure would find it there"

    def test_so_is_the_clang_that_a_variant_names(self, source: Source) -> None:
        engine = engine_with()
        variant = replace(JIT, configure=(*JIT.configure, "CC=clang"))
        spec = make_spec(source, variant, Arch.X86_64, Strategy.NATIVE, toolchain())
        with open_container(engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}) as container:
            populate(container, spec, source)
            files = engine.containers[container.id].files
            expected = (layout.SCRIPTS / "compiler.sh").read_bytes()
            assert {files.read(f"{layout.COMPILERS}/{name}") for name in ("clang-21", "clang++-21")} == {expected}
        folders = spec.environment["PATH"].split(":")
        assert folders.index(layout.COMPILERS) < folders.index(f"{layout.LLVM}/bin"), "that is the stencils' clang"

    def test_the_compiler_on_record_is_the_one_of_the_makefile(self, source: Source) -> None:
        def sh(process: FakeProcess) -> int:
            if "Makefile" in process.argv[-1]:
                process.write_line("Debian clang version 21.1.8" if process.cwd == BUILD else "nothing is there")
            return 0

        assert compiled(engine_with(sh=sh), source, io.StringIO()).compiler == "Debian clang version 21.1.8"

    def test_a_library_that_the_toolchain_lacks_is_no_ones_source(self, source: Source) -> None:
        def lacking(process: FakeProcess) -> int:
            process.write_line(
                "./python: error while loading shared libraries: libtsan.so.2: cannot open shared object file: No such "
                "file or directory"
            )
            return 2

        with pytest.raises(InfrastructureError, match=r"the toolchain image lacks libtsan\.so\.2"):
            compiled(engine_with(make=lacking), source, io.StringIO())

    def test_a_python_that_loads_its_library_finds_it_where_it_was_built(self, source: Source) -> None:
        shared = replace(JIT, configure=(*JIT.configure, "--enable-shared"))
        native = make_spec(source, shared, Arch.X86_64, Strategy.NATIVE, toolchain())
        (compiling,) = (command.argv for command in native.commands if command.phase == "compile")
        assert compiling[:4] == ("env", "PYTHON_JIT=0", f"LD_LIBRARY_PATH={BUILD}", "./python")
        cross = make_spec(source, shared, Arch.AARCH64, Strategy.CROSS, toolchain(), build_python="p")
        assert not any(word.startswith("LD_") for command in cross.commands for word in command.argv)

    def test_what_a_variant_is_built_with_is_in_the_environment_and_the_key(self, source: Source) -> None:
        variant = replace(JIT, environment={"TSAN_OPTIONS": "suppressions={tools}/tsan/suppressions.txt"})
        spec = make_spec(source, variant, Arch.X86_64, Strategy.NATIVE, toolchain())
        assert spec.environment["TSAN_OPTIONS"] == f"suppressions={SOURCE}/Tools/tsan/suppressions.txt"
        assert spec.key != make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain()).key

    def test_an_image_that_cannot_compile_it_is_no_ones_source(self, source: Source) -> None:
        with pytest.raises(InfrastructureError) as caught:
            compiled(engine_with(gcc=lambda process: 1), source, io.StringIO())
        assert caught.value.message.startswith("/usr/bin/gcc -O1 ")

    def test_makes_progress_that_is_counted(self, source: Source) -> None:
        steps = Steps()
        compiled(engine_with(), source, io.StringIO(), steps)
        assert (1, 2, "Objects/a.o") in steps.updates
        assert (2, 2, "Objects/b.o") in steps.updates

    def test_gives_the_container_nothing_it_does_not_need(self, source: Source) -> None:
        engine = engine_with()
        compiled(engine, source, io.StringIO())
        (started,) = engine.started
        assert started.network is False
        assert started.capabilities == ()
        assert started.user == "1000:1000"
        assert started.limits.memory is not None
        assert started.limits.memory < FACTS.memory
        assert all(command.cwd == BUILD for command in engine.commands if command.argv[0] == "make")

    def test_a_source_that_does_not_compile_is_cpythons_failure(self, source: Source) -> None:
        def broken(process: FakeProcess) -> int:
            process.write_line("Objects/a.c:1:1: error: expected ';'")
            return 2

        with pytest.raises(BuildError) as caught:
            compiled(engine_with(make=broken), source, io.StringIO())
        assert caught.value.exit_code == 1
        assert "exit status 2" in caught.value.message
        assert caught.value.details[0] == "$ cd /crossjit/build && make -j2"
        assert "Objects/a.c:1:1: error: expected ';'" in caught.value.details

    @pytest.mark.parametrize("failing", ["configure", "install", "compile", "support"])
    def test_a_script_of_ours_that_fails_itself_is_no_ones_source(self, source: Source, failing: str) -> None:
        def program(process: FakeProcess) -> int:
            phase = {"python3": "configure", "env": "compile", "sh": "support"}[process.argv[0]]
            if phase == "configure" and "install" in process.argv:
                phase = "install"
            if phase == failing and "before-make" not in process.argv:
                return layout.SCRIPT_FAULT
            return python(process) if process.argv[0] == "python3" else 0

        engine = engine_with(python3=program, env=program, sh=program)
        with pytest.raises(InfrastructureError) as caught:
            compiled(engine, source, io.StringIO())
        assert caught.value.exit_code == 3
        assert caught.value.message.startswith(f"{failing} failed: ")

    def test_that_status_of_a_program_of_cpythons_is_its_own(self, source: Source) -> None:
        with pytest.raises(BuildError):
            compiled(engine_with(make=lambda process: layout.SCRIPT_FAULT), source, io.StringIO())

    @pytest.mark.parametrize("spoiled", [None, "source", "target"])
    def test_the_script_for_what_stands_beside_tells_whose_fault_it_is(
        self, source: Source, tmp_path: Path, spoiled: str | None
    ) -> None:
        spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        (command,) = (command.argv for command in spec.commands if command.phase == "support")
        script = command[-1].replace(layout.ROOT, str(tmp_path))
        for name in ("src/Tools/jit", "support", "generated", "build"):
            (tmp_path / name).mkdir(parents=True)
        if spoiled == "source":
            shutil.rmtree(tmp_path / "src" / "Tools")
        elif spoiled == "target":
            shutil.rmtree(tmp_path / "support")
            (tmp_path / "support").write_text("")
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path / "build", capture_output=True, check=False)
        assert done.returncode == {None: 0, "source": 1, "target": layout.SCRIPT_FAULT}[spoiled]

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault.ENGINE_DIES, EngineError),
            (Fault.CONTAINER_VANISHES, EngineError),
            (Fault.OUT_OF_MEMORY, OutOfMemoryError),
        ],
    )
    def test_an_engine_that_fails_is_not(self, source: Source, fault: Fault, error: type[Exception]) -> None:
        engine = engine_with()
        engine.faults["make"] = fault
        with pytest.raises(error):
            compiled(engine, source, io.StringIO())

    def test_the_cache_below_is_only_read(self, source: Source) -> None:
        engine = engine_with()
        for volume in ("kept", "others"):
            engine.ensure_volume(volume, {})
        spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        with open_container(
            engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}, cache="kept", below="others"
        ):
            (started,) = engine.started
        assert started.volumes == {"kept": layout.CACHE, "others": f"{layout.CACHE_BELOW}:ro"}
        assert started.env["CROSSJIT_CACHE_BELOW"] == layout.CACHE_BELOW
        assert started.env["CROSSJIT_COMPILED_BELOW"] == f"{layout.CACHE_BELOW}/pyc"
        own, below = started.env["CCACHE_REMOTE_STORAGE"].split(" ")
        assert own.startswith(f"file:{layout.CACHE}/")
        assert below == f"file:{layout.CACHE_BELOW}/ccache|read-only=true"
        assert not started.env["CCACHE_DIR"].startswith((layout.CACHE, layout.CACHE_BELOW))

    def test_the_cache_is_a_volume_or_nothing(self, source: Source) -> None:
        engine = engine_with()
        engine.ensure_volume("kept", {})
        spec = make_spec(source, JIT, Arch.X86_64, Strategy.NATIVE, toolchain())
        for cache in ("kept", None):
            with open_container(
                engine, toolchain(), spec, facts=FACTS, name="b", labels={}, emulation={}, cache=cache
            ) as container:
                compiled_in(container, spec, source, subject="c", jobs=1, log=io.StringIO(), progress=Silent())
        with_it, without = engine.started
        assert with_it.volumes == {"kept": layout.CACHE}
        assert with_it.env["CROSSJIT_CACHE"] == layout.CACHE
        assert with_it.env["CCACHE_REMOTE_STORAGE"].startswith(f"file:{layout.CACHE}/ccache|")
        assert with_it.env["CROSSJIT_LLVM_SERVERS"] == f"{layout.TOOLS}/servers"
        assert set(with_it.env["CROSSJIT_LLVM_PROGRAMS"].split()) < set(LLVM_NAMES) | {"llvm-dwarfdump"}
        assert with_it.env["CROSSJIT_PREAMBLES"] == f"{layout.TOOLS}/preambles"
        for name in ("CROSSJIT_LLVM_SERVERS", "CROSSJIT_PREAMBLES"):
            assert name not in without.env, "that is held against the other"
        assert without.volumes == {}
        assert without.env["CCACHE_DISABLE"] == "1"
        assert "CROSSJIT_CACHE" not in without.env
        assert with_it.env["PATH"] == without.env["PATH"]
