"""The packages that a user's script needs, for each Python that it runs with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from crossjit.errors import InfrastructureError
from crossjit.host import LocalShell, Shell
from crossjit.host.wheels import Packages, Wheel, WheelTarget, fetch
from crossjit.images import Role
from crossjit.pipeline.context import BuildContext, PreparedCell

FOLDER = "/usr/local/libexec/packages"  # in a target; in PYTHONPATH of the script alone


class ScriptPackages:
    """A script's packages, fetched before anything runs, and once for each kind of Python."""

    def __init__(self, ctx: BuildContext, requirements: Sequence[str], shell: Shell | None = None) -> None:
        self.requirements = tuple(requirements)
        self._ctx = ctx
        self._shell = shell or LocalShell()
        self._found: dict[WheelTarget, Packages] = {}

    def files(self, prepared: PreparedCell) -> Mapping[str, bytes]:
        """Return the files to install in a cell's target. Raises UserError if a package is not found for it."""
        if not self.requirements:
            return {}
        target = self._target(prepared)
        if target not in self._found:
            with self._ctx.progress.step("packages", f"{prepared.cell}: {', '.join(self.requirements)}"):
                self._found[target] = fetch(self.requirements, target, self._shell)
        return {f"{FOLDER}/{path}": content for path, content in self._found[target].files.items()}

    def wheels(self) -> Iterator[tuple[WheelTarget, Wheel]]:
        """Yield the wheels that were fetched, and what for."""
        for target, packages in self._found.items():
            yield from ((target, wheel) for wheel in packages.wheels)

    def _target(self, prepared: PreparedCell) -> WheelTarget:
        arch = prepared.cell.arch
        image = self._ctx.ensure_image(prepared.image, Role.TARGET, arch)
        libc = image.version("libc6")
        if libc is None:
            raise InfrastructureError(f"{image.reference} has no libc6", hint="only Debian's images can have packages")
        glibc = int(libc.split(".")[1])
        return WheelTarget(arch, prepared.python, prepared.request.variant.free_threaded, glibc)
