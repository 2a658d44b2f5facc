"""What containers tell us, as strict types: runner, scripts' checks, probe, capabilities, caches, gdb. Pure.

Whatever is tested may have written it. So each value has its type, text and numbers have bounds, a field that is not
expected is an error, and files are named by plain names. crossjit reads such JSON here and nowhere else.
"""

from crossjit.channels.caches import Part, cache_report, cache_sizes
from crossjit.channels.capabilities import Capabilities, Capability
from crossjit.channels.gdb import Begun, Exit, Section, Stop, Uop, Whole, read_line
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
    "Capabilities",
    "Capability",
    "Check",
    "Done",
    "ModuleExit",
    "Event",
    "Executor",
    "Exit",
    "Job",
    "MalformedError",
    "MissingRequirement",
    "NotStarted",
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
    "value_of",
]
