"""Print how the CPython that runs this was built, as one JSON object on stdout.

Runs inside the target with the CPython under test only, independent of crossjit.
"""

import json
import platform
import re
import sys
import sysconfig


def jit_switches():
    """The facts of `sys._jit`; null without it (3.13)."""
    jit = getattr(sys, "_jit", None)
    return None if jit is None else {"available": jit.is_available(), "enabled": jit.is_enabled()}


def jit_macros(variables):
    """The values of `_Py_JIT` and `_Py_TIER2` on the compiler's command line, as configure wrote them."""
    flags = " ".join(value for value in variables.values() if isinstance(value, str))
    return {name: int(value or 1) for name, value in re.findall(r"-D(_Py_JIT|_Py_TIER2)(?:=(\d+))?\b", flags)}


def main():
    """Print the facts."""
    variables = sysconfig.get_config_vars()
    facts = {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "configure": variables.get("CONFIG_ARGS") or "",
        "compiler": platform.python_compiler(),
        "debug": hasattr(sys, "gettotalrefcount"),
        "free_threaded": bool(variables.get("Py_GIL_DISABLED")),
        "macros": jit_macros(variables),
        "jit": jit_switches(),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
