"""Stencils alone, on the tiny source with a build.py that asks the real clang: made, shipped, checked, compared."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from crossjit.model import Arch
from tests.e2e import tiny_source
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

COMMAND = (
    '\n\t$(PYTHON_FOR_REGEN) $(srcdir)/Tools/jit/build.py @HOST@ --output-dir . --llvm-version="" '
    '--llvm-tools-install-dir="/crossjit/llvm"\n'
)
# Writes one stencil: the digest of the assembly that clang makes, so that it depends on LLVM, arch and pyconfig.h.
BUILD = '''\
import hashlib, pathlib, subprocess, sys
host, options = sys.argv[1], dict(word.partition("=")[::2] for word in sys.argv if "=" in word)
clang = options["--llvm-tools-install-dir"] + "/bin/clang"
code = '#include "pyconfig.h"\\nint f(int *x) { return x[TINY_DEBUG] / 3; }'
said = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True).stdout
assert f"version {options['--llvm-version'] or 21}." in said, said
argv = [clang, f"--target={host}", "-O2", "-I.", "-S", "-o-", "-x", "c", "-"]
made = subprocess.run(argv, check=True, input=code.encode(), capture_output=True).stdout
body = ", ".join(f"{byte:#04x}" for byte in hashlib.sha256(made).digest()[:8])
text = f"""// {hashlib.sha256(pathlib.Path("pyconfig.h").read_bytes()).hexdigest()}
// $ {" ".join(sys.argv)}

void
emit__TINY_r00(
    unsigned char *code)
{{
    const unsigned char code_body[8] = {{ {body}, }};
    memcpy(code, code_body, sizeof(code_body));
}}

static const StencilGroup stencil_groups[] = {{
    [_TINY_r00] = {{emit__TINY_r00, 8, 0, {{0}}}},
}};
"""
arch = host.partition("-")[0]
pathlib.Path(f"jit_stencils-{arch}-unknown-linux-gnu.h").write_text(text)
'''


@pytest.fixture
def jitting(tmp_path: Path) -> Path:
    """A recipe of the tiny source with such a build.py."""
    named = '-e "s|@STENCILS@'
    configure = (tiny_source.TREE / "configure").read_text().replace(named, f'-e "s|@HOST@|$host|" {named}')
    makefile = (tiny_source.TREE / "Makefile.pre.in").read_text()
    assert "@HOST@" in configure
    changes = {
        "configure": configure,
        "Makefile.pre.in": f"{makefile}\nregen-jit:{COMMAND}",
        "Tools/jit/build.py": BUILD,
    }
    (tmp_path / "source").mkdir()
    return tiny_source.recipe(tmp_path / "tiny.toml", tiny_source.archive(tmp_path / "source", changes))


def test_stencils_are_made_and_checked_on_both_archs(
    driver: Driver, jitting: Path, host_arch: Arch, foreign_arch: Arch, tmp_path: Path
) -> None:
    options = ("stencils", "build", "--recipe", jitting, "--arch", "all")
    found = driver.run(*options, "-o", tmp_path / "out", "--json").json["archives"]
    paths = [Path(each["path"]) for each in found]
    assert {each["llvm"].partition(".")[0] for each in found} == {"21"}
    assert len({each["digest"] for each in found}) == 2
    assert sorted(each.name.split("-")[2] for each in paths) == sorted([host_arch, foreign_arch])
    driver.run(*options, "-o", tmp_path / "again")
    for path in paths:
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
        checked = driver.run("stencils", "verify", path, "--recipe", jitting, "--json").json
        assert (checked["verdict"], checked["inputs"], checked["pyconfig"]) == ("pass", True, [])
    assert driver.leftovers() == []
    assert {each["of"].partition(" ")[0] for each in driver.run("stash", "list", "--json").json} == {"build-python"}

    with tarfile.open(paths[0]) as tar:
        tar.extractall(tmp_path / "shipped", filter="data")
    (header,) = (tmp_path / "shipped").glob("*/jit_stencils-*.h")
    driver.run("stencils", "verify", header, "--recipe", jitting)
    before, after = header.read_text().split("= { 0x")
    header.write_text(f"{before}= {{ 0x{'00' if after[:2] != '00' else '01'}{after[2:]}")
    said = driver.run("stencils", "verify", header, "--recipe", jitting, expect=1).stdout
    assert said.startswith("These are not the stencils that LLVM 21")
    assert "_TINY_r00" in said
    said = driver.run("stencils", "verify", jitting, expect=2).stderr
    assert "is neither a header with stencils nor an archive of them" in said


def test_one_llvm_is_compared_with_itself(driver: Driver, jitting: Path, host_arch: Arch) -> None:
    options = ("effect", "--llvm", "21", "--recipe", jitting, "--arch", host_arch, "--suite", "jit", "--json")
    document = driver.run(*options).json
    assert document["headline"] == "LLVM 21 makes the stencils of 3.15.0, the same bytes twice"
    (cell,) = document["compilers"]["cells"]
    (made,) = cell["made"]
    assert (made["size"]["bytes"], made["differing"], made["suite"]["verdict"]) == (8, [], "pass")
    assert driver.leftovers() == []
