"""Calls of functions, classes and built-in functions."""

import math

ROUNDS = 512


def _add(x, y):
    return x + y


def _default(x, y=2, *, z=3):
    return x + y + z


def _rest(*values, **options):
    return len(values) + len(options)


def _factorial(number):
    return 1 if number < 2 else number * _factorial(number - 1)


def _outer(x):
    return _middle(x) + 1


def _middle(x):
    return _inner(x) + 1


def _inner(x):
    return x


class _Empty:
    pass


class _Made:
    def __init__(self, value):
        self.value = value


class _Callable:
    def __call__(self, value):
        return value + 1


class _Indexed:
    def __getitem__(self, index):
        return index

    def __len__(self):
        return 3

    def __bool__(self):
        return True

    def __add__(self, other):
        return other

    def __lt__(self, other):
        return True


def function():
    """Call a function with the arguments that it names."""
    total = 0
    for number in range(ROUNDS):
        total = _add(number, 1)
    return total


def defaults():
    """Call a function with defaults."""
    total = 0
    for number in range(ROUNDS):
        total = _default(number)
        total = _default(number, 1)
    return total


def keywords():
    """Call a function with keyword arguments."""
    total = 0
    for number in range(ROUNDS):
        total = _default(number, z=1)
        total = _add(x=number, y=1)
    return total


def stars():
    """Call a function with a star and two stars."""
    values, options, total = (1, 2), {"z": 3}, 0
    for _ in range(ROUNDS):
        total = _rest(*values, **options) + _add(*values)
    return total


def nested():
    """Call functions that call functions."""
    total = 0
    for number in range(ROUNDS):
        total = _outer(number)
    return total


def recursion():
    """Call a function that calls itself."""
    total = 0
    for _ in range(ROUNDS // 8):
        total = _factorial(8)
    return total


def closure():
    """Call a closure, which changes a variable of its function."""
    count = 0

    def more():
        nonlocal count
        count += 1
        return count

    for _ in range(ROUNDS):
        more()
    return count


def make_functions():
    """Make functions, and call them."""
    total = 0
    for number in range(ROUNDS):
        double = lambda value=number: value * 2  # noqa: E731 - making a function is what counts
        total = double()
    return total


def make_instances():
    """Make instances of classes."""
    made = None
    for number in range(ROUNDS):
        made = _Made(number)
        _Empty()
    return made.value


def callable_instances():
    """Call an instance."""
    call, total = _Callable(), 0
    for number in range(ROUNDS):
        total = call(number)
    return total


def built_in():
    """Call built-in functions of each kind."""
    values, total = [3, 1, 2], 0
    for number in range(ROUNDS):
        total = len(values) + abs(-number) + min(number, 7) + max(values)
        total = sum(values, 1)
    return total


def built_in_classes():
    """Call built-in classes."""
    total = 0
    for number in range(ROUNDS):
        total = len(str(number)) + len(tuple((1, 2))) + int(1.5) + len(list((1,)))  # noqa: C409, C410 - as above
    return total


def types():
    """Ask for the types of values."""
    count, values = 0, (1, "a", 2.0)
    for number in range(ROUNDS):
        value = values[number % 3]
        if isinstance(value, int):
            count += 1
        if type(value) is str:
            count += 1
    return count


def library():
    """Call functions of an extension module."""
    total = 0.0
    for number in range(ROUNDS):
        total = math.sqrt(number) + math.floor(1.5)
    return total


def methods_of_lists():
    """Call methods of built-in types with no, one and several arguments."""
    values, total = [1, 2, 3], 0
    for _ in range(ROUNDS):
        total = values.count(2) + values.index(3, 0)
        values = values.copy()
        values.reverse()
    return total


def special_methods():
    """Use operators that call methods in Python."""
    thing, total = _Indexed(), 0
    for number in range(ROUNDS):
        total = thing[number] + len(thing)
        total = thing + number
        if thing < thing:
            total += 1
        if thing:
            total += 1
    return total
