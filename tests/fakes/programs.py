"""The few programs that every fake container has, as small as their uses in crossjit are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fakes.engine import FakeProcess


def _operands(process: FakeProcess) -> list[str]:
    return [argument for argument in process.argv[1:] if not argument.startswith("-")]


def _trouble(process: FakeProcess, error: OSError) -> int:
    process.write_line(f"{process.argv[0]}: {error.filename}: {error.strerror}")
    return 1


def _true(process: FakeProcess) -> int:
    return 0


def _false(process: FakeProcess) -> int:
    return 1


def _echo(process: FakeProcess) -> int:
    process.write_line(" ".join(process.argv[1:]))
    return 0


def _cat(process: FakeProcess) -> int:
    try:
        for name in _operands(process):
            for line in process.files.read(process.path(name)).decode(errors="replace").splitlines():
                process.write_line(line)
    except OSError as error:
        return _trouble(process, error)
    return 0


def _sleep(process: FakeProcess) -> int:
    process.sleep(sum(float(seconds) for seconds in process.argv[1:]))
    return 0


def _mkdir(process: FakeProcess) -> int:
    try:
        for name in _operands(process):
            process.files.make_folder(process.path(name), uid=process.uid, gid=process.gid)
    except OSError as error:
        return _trouble(process, error)
    return 0


def _mv(process: FakeProcess) -> int:
    *sources, destination = _operands(process)
    try:
        for source in sources:
            process.files.move(process.path(source), process.path(destination))
    except OSError as error:
        return _trouble(process, error)
    return 0


def _rm(process: FakeProcess) -> int:
    forced = any(argument.startswith("-") and "f" in argument for argument in process.argv[1:])
    for name in _operands(process):
        try:
            process.files.remove(process.path(name))
        except OSError as error:
            if not forced:
                return _trouble(process, error)
    return 0


def _touch(process: FakeProcess) -> int:
    try:
        for name in _operands(process):
            if not process.files.exists(process.path(name)):
                process.write_file(name, b"")
    except OSError as error:
        return _trouble(process, error)
    return 0


def _env(process: FakeProcess) -> int:
    """Print the environment, or run a command with more of it."""
    rest = list(process.argv[1:])
    while rest and "=" in rest[0]:
        name, _, value = rest.pop(0).partition("=")
        process.env[name] = value
    if rest:
        return process.run(rest)
    for name, value in process.env.items():
        process.write_line(f"{name}={value}")
    return 0


def _id(process: FakeProcess) -> int:
    number = {"-u": f"{process.uid}", "-g": f"{process.gid}"}.get("".join(process.argv[1:]))
    process.write_line(number or f"uid={process.uid} gid={process.gid}")
    return 0


def _pwd(process: FakeProcess) -> int:
    process.write_line(process.cwd)
    return 0


def _nproc(process: FakeProcess) -> int:
    process.write_line(str(process.container.engine.cores))
    return 0


BUILT_IN: dict[str, Callable[[FakeProcess], int]] = {
    "true": _true,
    "false": _false,
    "echo": _echo,
    "cat": _cat,
    "sleep": _sleep,
    "mkdir": _mkdir,
    "mv": _mv,
    "rm": _rm,
    "touch": _touch,
    "env": _env,
    "id": _id,
    "pwd": _pwd,
    "nproc": _nproc,
}
