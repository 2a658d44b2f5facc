"""Integers that leave the small ones: sums, products and remainders of hundreds of bits."""

import pyperf

ROUNDS = 40_000
MODULUS = (1 << 255) - 19


def big_ints(rounds=ROUNDS):
    """Compute with numbers of 255 bits."""
    first, second = 3, (1 << 200) + 7
    for _ in range(rounds):
        first = (first * second + 1) % MODULUS
        second += first >> 3
        second ^= first & 0xFFFF
        second %= MODULUS
    return first ^ second


if __name__ == "__main__":
    pyperf.Runner().bench_func("big_ints", big_ints)
