"""A stage of a Dockerfile, and its build by a client's command line."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossjit.engine import cli_text, confinement
from crossjit.engine.base import LineSink
from crossjit.engine.cli_client import CliClient
from crossjit.engine.process import follow
from crossjit.model import Arch

LOG_TAIL = 30  # lines shown of a failed build


@dataclass(frozen=True)
class Stage:
    """The stage `target` of the Dockerfile in `context`, to be built for `arch` with this tag, arguments and labels."""

    context: Path
    target: str
    arch: Arch
    tag: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]

    def build(self, cli: CliClient, *command: str, on_line: LineSink | None) -> None:
        """Build it with this subcommand and its flags; the log goes to `on_line`.

        Raises EngineError with the last lines of the log as details, Interrupted if the client was stopped.
        """
        flags = [*command, "--target", self.target, "--tag", self.tag, *confinement.build_proxies()]
        for key, value in self.arguments.items():
            flags += ["--build-arg", f"{key}={value}"]
        flags += cli_text.label_flags(self.labels)
        last: deque[str] = deque(maxlen=LOG_TAIL)
        cli.check()

        def on_any_line(line: str) -> None:
            if line.strip():
                last.append(line)
            if on_line is not None:
                on_line(line)

        argv = (*cli.command, *flags, str(self.context))
        if follow(argv, on_line=on_any_line, on_error_line=on_any_line).returncode != 0:
            cli.check()
            what = f"build the image {self.tag} (stage {self.target} of {self.context})"
            raise cli.error(what, "\n".join(last))
