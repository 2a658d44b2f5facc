"""configure's answers for a build to come, found in a container of their own while another build leaves a core idle."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from crossjit.build.container import populate
from crossjit.build.layout import BUILD_PYTHON, BUILDER, CONFIGURE_SCRIPT, SCRIPTS, python_of
from crossjit.build.spec import BuildSpec
from crossjit.engine.base import Container
from crossjit.errors import CrossjitError
from crossjit.model import Strategy
from crossjit.sources import Kind, Source, trust
from crossjit.stash.store import Store
from crossjit.util.tar import packed


def are_new(spec: BuildSpec, source: Source, store: Store) -> bool:
    """Tell whether it is worth while to ask: nothing in the stash was configured like that, and no emulator has to.

    What is kept in the engine's volume cannot be asked without a container, which takes as long as a few answers. An
    archive has files for configure to read that are left out of other sources of its version.
    """
    if spec.strategy is Strategy.EMULATE:
        return False
    asked = (spec.configure_line, source.version, source.kind is Kind.ARCHIVE)
    domains = trust.serving(spec.domain)
    known = (each.manifest for each in store.artifacts() if each.manifest.domain in domains)
    return all((each.configure, each.version, each.source.kind == Kind.ARCHIVE) != asked for each in known)


@contextlib.contextmanager
def asked(opened: AbstractContextManager[Container], ask: Callable[[Container], None]) -> Iterator[None]:
    """Have configure answer in a container while the block runs, and keep that for the build; wait for it at the end.

    What goes wrong in the container does not matter, as the build asks anew. If the block fails, the container goes.
    """
    container = contextlib.ExitStack()
    given_up = threading.Event()

    def work() -> None:
        with contextlib.suppress(CrossjitError, OSError), container:
            inside = container.enter_context(opened)
            if not given_up.is_set():
                ask(inside)

    with ThreadPoolExecutor(1) as aside:
        working = aside.submit(work)
        try:
            yield
        except BaseException:
            given_up.set()
            with contextlib.suppress(CrossjitError):  # what the block failed with is the one to tell
                container.close()
            raise
        working.result()


def ask(container: Container, spec: BuildSpec, source: Source) -> None:
    """Fill a fresh toolchain container and have configure answer there, for the build of the spec to find it in the
    cache.

    A cross build's own Python need not be there yet. How it ends does not matter to anybody: the build will tell.
    """
    populate(container, spec, source)
    if spec.strategy is Strategy.CROSS:
        stand_in = {python_of(source): (SCRIPTS / "build_python.sh").read_bytes()}
        with packed(stand_in, owner=BUILDER, mode=0o755) as tar:
            container.put(tar, BUILD_PYTHON)
    container.run((*CONFIGURE_SCRIPT, *spec.configure.argv), cwd=spec.configure.cwd)
