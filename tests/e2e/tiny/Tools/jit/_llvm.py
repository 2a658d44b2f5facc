"""Says which LLVM is needed, as CPython's own does."""

_LLVM_VERSION = "21"
