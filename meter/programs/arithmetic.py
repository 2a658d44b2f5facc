"""Operators on numbers."""

ROUNDS = 512


def add_ints():
    """Add small integers."""
    total = 0
    for number in range(ROUNDS):
        total = (total + number) & 0xFFFF
    return total


def subtract_and_multiply_ints():
    """Subtract and multiply small integers."""
    total = 1
    for number in range(ROUNDS):
        total = (number - total) * 3
        total = number - 7
    return total


def divide_ints():
    """Divide integers in each way."""
    total = 0.0
    for number in range(1, ROUNDS):
        total = 1000 // number + 1000 % number + 1000 / number
    return total


def shift_and_mask():
    """Use the operators on bits."""
    bits = 1
    for number in range(ROUNDS):
        bits = ((bits << 3) ^ (number >> 2) | 5) & 0xFFFF
        bits = ~bits & 0xFFF
    return bits


def big_ints():
    """Add integers of several digits."""
    total = 1 << 100
    for number in range(ROUNDS):
        total = total + number - (1 << 70)
    return total


def power():
    """Raise small integers to a power."""
    total = 0
    for number in range(ROUNDS):
        total = (number & 7) ** 2
    return total


def add_floats():
    """Add and subtract floats."""
    total, step = 0.0, 0.5
    for _ in range(ROUNDS):
        total = total + step - 0.25
    return total


def multiply_floats():
    """Multiply and divide floats."""
    total = 1.0
    for _ in range(ROUNDS):
        total = total * 1.5 / 1.5
    return total


def temporary_floats():
    """Use the results of float operators at once."""
    x, y, z = 1.0, 2.0, 3.0
    for _ in range(ROUNDS):
        x = (x * y + y * z) - (x * z - y * y) * 0.001
        x = y - 1.0
    return x


def mix_ints_and_floats():
    """Use operators on an integer and a float."""
    total = 0.0
    for number in range(ROUNDS):
        total = number * 0.5 + 1 - total / 2
    return total


def negate():
    """Use the unary operators."""
    total, value = 0, 1.5
    for number in range(ROUNDS):
        value = -value
        total = -number + +total
        total = ~number
    return total, value


def compare_ints():
    """Compare integers in each way."""
    count = 0
    for number in range(ROUNDS):
        count += number < 300
        count += number >= 200
        count += number == 7
        count += number != 8
    return count


def compare_floats():
    """Compare floats."""
    count, value = 0, 0.5
    for _ in range(ROUNDS):
        value = value + 1.0
        if value > 10.0:
            count += 1
        if value == 3.5:
            count += 1
    return count


def chained_comparison():
    """Compare three integers."""
    count = 0
    for number in range(ROUNDS):
        if 1 < number <= 400:
            count += 1
    return count


def complex_numbers():
    """Use operators on complex numbers."""
    total, step = 0j, 1 + 2j
    for _ in range(ROUNDS):
        total = total * 0.5 + step
    return total
