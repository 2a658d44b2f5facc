"""Conditions, exceptions, `with`, `match`, and variables of each kind."""

ROUNDS = 512
_count = 0
_NOTHING = None


class _Context:
    def __enter__(self):
        return self

    def __exit__(self, *details):
        return False


class _Pair:
    __match_args__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y


def _fail(number):
    raise ValueError(number)


def branches():
    """Take each of two branches in turn."""
    total = 0
    for number in range(ROUNDS):
        if number & 1:
            total += 1
        else:
            total -= 2
    return total


def rare_branch():
    """Take a branch rarely."""
    total = 0
    for number in range(ROUNDS):
        if number % 64 == 0:
            total += 7
        total += 1
    return total


def many_branches():
    """Take each of four branches."""
    total = 0
    for number in range(ROUNDS):
        if number & 3 == 0:
            total += 1
        elif number & 3 == 1:
            total += 2
        elif number & 3 == 2:
            total += 3
        else:
            total += 4
    return total


def truth():
    """Ask whether values of each type are true."""
    count, empty, text, number, none = 0, [], "spam", 0, None
    for flag in (True, False) * (ROUNDS // 2):
        if flag:
            count += 1
        if not empty:
            count += 1
        if text:
            count += 1
        if number:
            count += 1
        if not none:
            count += 1
    return count


def nothing():
    """Compare with None."""
    count, values = 0, (None, 1)
    for number in range(ROUNDS):
        value = values[number & 1]
        if value is None:
            count += 1
        if value is not _NOTHING:
            count += 1
    return count


def and_or():
    """Use `and`, `or` and conditional expressions."""
    total = 0
    for number in range(ROUNDS):
        total = (number and total) or 1
        total = 2 if number > 3 and total else 3
    return total


def no_exception():
    """Enter `try` without an exception."""
    total = 0
    for number in range(ROUNDS):
        try:
            total += number
        except ValueError:
            total = 0
    return total


def exception():
    """Catch an exception of a function in each round."""
    count = 0
    for number in range(ROUNDS):
        try:
            _fail(number)
        except ValueError:
            count += 1
    return count


def missing_key():
    """Catch an exception of an operator now and then."""
    values, count = {0: 1, 1: 2}, 0
    for number in range(ROUNDS):
        try:
            count += values[number & 15]
        except KeyError:
            count -= 1
    return count


def context():
    """Enter `with`."""
    count, manager = 0, _Context()
    for _ in range(ROUNDS):
        with manager:
            count += 1
    return count


def match_values():
    """Match constants and sequences."""
    count, values = 0, ((1, 2), 3, "spam", [1])
    for number in range(ROUNDS):
        match values[number & 3]:
            case (x, y):
                count += x + y
            case 3:
                count += 1
            case "spam":
                count += 2
            case _:
                count += 3
    return count


def match_classes():
    """Match classes and mappings."""
    count, values = 0, (_Pair(1, 2), {"x": 3})
    for number in range(ROUNDS):
        match values[number & 1]:
            case _Pair(x, y):
                count += x + y
            case {"x": x}:
                count += x
    return count


def global_variables():
    """Read and write global variables."""
    global _count
    for number in range(ROUNDS):
        _count = _count + number & 0xFF
    return _count


def local_variables():
    """Use many local variables."""
    a, b, c, d, e, f, g, h = 1, 2, 3, 4, 5, 6, 7, 8
    for _ in range(ROUNDS):
        a, b, c, d = b, c, d, a
        e = a + b
        f = c + d
        g = e - f
        h = g
        del g
    return a, b, c, d, e, f, h


def cells():
    """Use variables that a nested function shares."""
    total = 0

    def shown():
        return total

    for number in range(ROUNDS):
        total = total + number & 0xFF
    return shown()


def imports():
    """Import in a loop."""
    total = 0.0
    for _ in range(ROUNDS):
        from math import pi

        total = pi
    return total
