"""Counting a program's instructions under QEMU, on any host: the meter, its marks, the benchmarks and their counts."""
