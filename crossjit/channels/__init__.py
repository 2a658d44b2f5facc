"""Strict types for data from containers: runner, scripts' checks, probe, capabilities, caches, gdb, the meter. Pure.

The data is untrusted: the tested program may have written it. So every value has a type, text and numbers have limits,
unknown fields are errors, and files have plain names. crossjit parses such JSON only here.
"""

from crossjit.channels.benchmark import BenchmarkFacts, ExecutorFacts
from crossjit.channels.build_facts import BuildFacts
from crossjit.channels.caches import Part, cache_report, cache_sizes
from crossjit.channels.capabilities import Capabilities, Capability
from crossjit.channels.gdb import Begun, Exit, Section, Stop, Uop, Whole, read_line
from crossjit.channels.meter import JitMemory, Mark, Op, read_mark
from crossjit.channels.probe import Executor, ProbeFacts, ProbeRecord, Workload, probe_record
from crossjit.channels.reading import MalformedError, read, value_of
from crossjit.channels.runner import (
    Check,
    Done,
    Event,
    Job,
    MissingRequirement,
    ModuleExit,
    NotStarted,
    Plan,
    Start,
    read_event,
)
from crossjit.channels.test_list import TestList, TestListReader

__all__ = [
    "Begun",
    "BenchmarkFacts",
    "ExecutorFacts",
    "BuildFacts",
    "Capabilities",
    "Capability",
    "Check",
    "Done",
    "ModuleExit",
    "Event",
    "Executor",
    "Exit",
    "JitMemory",
    "Job",
    "MalformedError",
    "Mark",
    "MissingRequirement",
    "NotStarted",
    "Op",
    "Part",
    "Plan",
    "ProbeFacts",
    "ProbeRecord",
    "Section",
    "Start",
    "Stop",
    "TestList",
    "TestListReader",
    "Uop",
    "Whole",
    "Workload",
    "cache_report",
    "cache_sizes",
    "probe_record",
    "read",
    "read_event",
    "read_line",
    "read_mark",
    "value_of",
]
