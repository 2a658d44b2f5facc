"""Interpret the shell scripts of a workflow's steps: which commands they run, with which arguments and environment.

Only what such scripts use is understood: plain commands, variables, `export`, `if [ a = b ]`, pipelines and lists.
Nothing is run: what a command prints is unknown, and so are all words that depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from crossjit.upstream.expressions import UNKNOWN_TEXT

ENV_FILE = "GITHUB_ENV"
_GROUPS = ("program", "list", "compound_statement", "do_group", "else_clause", "subshell")
_IGNORED = ("comment", "function_definition", "heredoc_body")


class ShellError(ValueError):
    """A script with something that is not understood; `line` counts from 1 within the script."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Invocation:
    """One command: its words, the variables that it sees, and its line within the script, counted from 1."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    line: int


@dataclass
class Script:
    """A script that was interpreted: its commands in order, and the variables that it leaves to later steps."""

    commands: list[Invocation] = field(default_factory=list)
    later: dict[str, str] = field(default_factory=dict)


def interpret(text: str, env: Mapping[str, str]) -> Script:
    """Interpret a script that starts with these variables. Raises ShellError."""
    tree = _parser().parse(text.encode())
    interpreter = _Interpreter(dict(env), set(env))
    try:
        interpreter.run(tree.root_node)
    except RecursionError as error:
        raise ShellError(1, "the script is nested too deeply") from error
    return interpreter.script


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bash.language()))


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


@dataclass
class _Interpreter:
    variables: dict[str, str]
    exported: set[str]
    script: Script = field(default_factory=Script)

    def run(self, node: Node) -> None:
        """Run a statement."""
        match node.type:
            case kind if kind in _GROUPS or kind == "pipeline":
                for child in node.named_children:
                    self.run(child)
            case kind if kind in _IGNORED:
                pass
            case "command":
                self._command(node)
            case "variable_assignment":
                name, value = self._assignment(node)
                self.variables[name] = value
            case "declaration_command":
                self._declare(node)
            case "redirected_statement":
                self._redirected(node)
            case "if_statement":
                self._if(node)
            case "negated_command" | "test_command":
                pass
            case kind:
                raise ShellError(node.start_point[0] + 1, f"the shell construct {kind!r} is not understood")

    def _command(self, node: Node) -> Invocation:
        own: dict[str, str] = {}
        words: list[str] = []
        for child in node.named_children:
            if child.type == "variable_assignment":
                name, value = self._assignment(child, own)
                own[name] = value
            elif child.type == "command_name":
                words += self._words(child.named_children[0])
            elif not child.type.endswith("redirect"):
                words += self._words(child)
        env = {name: value for name, value in self.variables.items() if name in self.exported} | own
        invocation = Invocation(tuple(words), env, node.start_point[0] + 1)
        self.script.commands.append(invocation)
        return invocation

    def _declare(self, node: Node) -> None:
        keyword = _text(node.children[0])
        for child in node.named_children:
            if child.type == "variable_assignment":
                name, value = self._assignment(child)
                self.variables[name] = value
            elif child.type == "variable_name":
                name = _text(child)
            else:
                continue
            if keyword == "export":
                self.exported.add(name)

    def _redirected(self, node: Node) -> None:
        """Run a command whose output goes to a file; what is written for later steps is remembered."""
        body = node.child_by_field_name("body")
        if body is None:
            return
        target = "".join(
            word
            for redirect in node.children_by_field_name("redirect")
            if redirect.type == "file_redirect" and (place := redirect.child_by_field_name("destination")) is not None
            for word in self._words(place)
        )
        if body.type == "command" and target == f"${ENV_FILE}":
            name, _, value = " ".join(self._command(body).argv[1:]).partition("=")
            self.script.commands.pop()
            self.script.later[name] = value
        else:
            self.run(body)

    def _if(self, node: Node) -> None:
        """Run the branch that a comparison of known words chooses."""
        condition = node.child_by_field_name("condition")
        chosen = self._holds(condition) if condition is not None else None
        if chosen is None:
            raise ShellError(node.start_point[0] + 1, "the condition is not known")
        for child in node.named_children:
            if child == condition:
                continue
            if child.type == "elif_clause":
                raise ShellError(child.start_point[0] + 1, "the shell construct 'elif' is not understood")
            if (child.type == "else_clause") is not chosen:
                self.run(child)

    def _holds(self, node: Node) -> bool | None:
        """Evaluate `[ one = other ]` or `[[ one == other ]]`; None if the result is unknown."""
        comparison = node.named_children[0] if node.type == "test_command" and node.named_children else None
        if comparison is None or comparison.type != "binary_expression":
            return None
        left, right = comparison.child_by_field_name("left"), comparison.child_by_field_name("right")
        operator = comparison.child_by_field_name("operator")
        if left is None or right is None or operator is None or _text(operator) not in ("=", "==", "!="):
            return None
        one, other = (self._value(each) for each in (left, right))
        if UNKNOWN_TEXT in one + other:
            return None
        return (one == other) is (_text(operator) != "!=")

    def _assignment(self, node: Node, own: Mapping[str, str] | None = None) -> tuple[str, str]:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        assert name is not None
        return _text(name), self._value(value, own) if value is not None else ""

    def _words(self, node: Node) -> list[str]:
        """Expand a node to words: an unquoted variable is split at white space, and none if it is empty."""
        value = self._value(node)
        return value.split() if node.type in ("simple_expansion", "expansion") else [value]

    def _value(self, node: Node, own: Mapping[str, str] | None = None) -> str:
        """Expand a node to text."""
        match node.type:
            case "raw_string":
                return _text(node)[1:-1]
            case "string":
                return "".join(self._quoted(node, own))
            case "concatenation":
                return "".join(self._value(child, own) for child in node.named_children)
            case "simple_expansion" | "expansion":
                return self._variable(node, own)
            case "word" | "number":
                return _text(node).replace("\\\n", "").replace("\\", "")
            case "test_operator" | "regex" | "extglob_pattern" | "special_variable_name":
                return _text(node)
        return UNKNOWN_TEXT

    def _quoted(self, node: Node, own: Mapping[str, str] | None) -> Iterator[str]:
        """Yield the parts of a quoted string, with the white space between them, which no node covers."""
        whole, end = node.text or b"", 1
        for child in node.named_children:
            start = child.start_byte - node.start_byte
            yield whole[end:start].decode()
            yield _text(child) if child.type == "string_content" else self._value(child, own)
            end = child.end_byte - node.start_byte
        yield whole[end:-1].decode()

    def _variable(self, node: Node, own: Mapping[str, str] | None) -> str:
        names = [child for child in node.named_children if child.type == "variable_name"]
        plain = len(node.named_children) == 1 and len(names) == 1 and len(_text(node)) <= len(_text(names[0])) + 3
        if not plain:
            return UNKNOWN_TEXT
        name = _text(names[0])
        if name == ENV_FILE:
            return f"${ENV_FILE}"
        return {**self.variables, **(own or {})}.get(name, UNKNOWN_TEXT)
