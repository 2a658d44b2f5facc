"""Images of a foreign architecture with podman.

Podman 4 takes `--platform` for every stage, whatever `FROM --platform` says: the stages that run programs would run
foreign ones. So the stage is built for the engine's own platform, with the argument that a builder would set for the
foreign one, and the files of the result become an image of the foreign architecture.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import replace

from crossjit.engine.base import LineSink
from crossjit.engine.cli_client import CliClient
from crossjit.engine.image_stage import Stage
from crossjit.engine.process import ClientResult, feed, held_signals, reading
from crossjit.errors import EngineError
from crossjit.model import Arch

# Its cache of layers does not know of the arguments that stand for a platform.
_BUILD = ("build", "--layers=false", "--pull=never")
_NO_PROGRAM = "/none"  # a container that only is exported needs a command, and never runs it


def build(cli: CliClient, stage: Stage, *, own: Arch, on_line: LineSink | None) -> None:
    """Build a stage with podman on an engine of the arch `own`. Raises EngineError."""
    if stage.arch is own:
        stage.build(cli, *_BUILD, on_line=on_line)
        return
    draft = replace(stage, tag=f"{stage.tag}-{secrets.token_hex(4)}")
    try:
        draft.build(cli, *_BUILD, "--build-arg", f"TARGETARCH={stage.arch.debian}", on_line=on_line)
        _convert(cli, draft, stage)
    finally:
        with held_signals():
            cli.try_call("image", "rm", "--force", draft.tag)


def quoted(text: str) -> str:
    """Quote a word for an instruction of `import --change`: podman takes what is in the outer quotes as it is."""
    return f'"{text}"'


def _convert(cli: CliClient, draft: Stage, stage: Stage) -> None:
    """Make the image of `stage` from the files and variables of the image of `draft`."""
    action = f"make the image {stage.tag} from {draft.tag}"
    with cli.translated_errors(action):
        config = cli.library.image.inspect(draft.tag).config
    variables = (config.env if config else None) or []
    changes = [f"ENV {name}={quoted(value)}" for name, _, value in (text.partition("=") for text in variables)]
    changes += [f"LABEL {quoted(key)}={quoted(value)}" for key, value in stage.labels.items()]
    flags = ["--os", "linux", "--arch", stage.arch.debian]
    flags += [word for change in changes for word in ("--change", change)]

    def failed(result: ClientResult, begun: bool) -> EngineError:
        return cli.error(action, result.stderr)

    with _container(cli, draft.tag) as container, reading((*cli.command, "export", container), failed) as files:
        result = feed((*cli.command, "import", *flags, "-", stage.tag), files)
    if result.returncode != 0:
        raise cli.error(action, result.stderr)


@contextlib.contextmanager
def _container(cli: CliClient, image: str) -> Iterator[str]:
    """Make a container of an image, which is never started, and yield its id."""
    created: list[str] = []
    try:
        with held_signals():
            action = f"open the image {image}"
            created += cli.call(action, "create", "--pull", "never", "--network", "none", image, _NO_PROGRAM).split()
        yield created[-1]
    finally:
        with held_signals():
            for container in created:
                cli.try_call("rm", "--force", container)
