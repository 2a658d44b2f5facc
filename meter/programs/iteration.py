"""Loops, generators and coroutines."""

ROUNDS = 512


class _Countdown:
    def __init__(self, number):
        self.number = number

    def __iter__(self):
        return self

    def __next__(self):
        if not self.number:
            raise StopIteration
        self.number -= 1
        return self.number


def _numbers(count):
    for number in range(count):  # noqa: UP028 - a loop is what counts
        yield number


def _delegating(count):
    yield from _numbers(count)


def _echo():
    value = 0
    while True:
        value = yield value


async def _value(number):
    return number


async def _values(count):
    total = 0
    for number in range(count):
        total += await _value(number)
    return total


async def _each(count):
    for number in range(count):
        yield number


async def _sum(count):
    total = 0
    async for number in _each(count):
        total += number
    return total


def _finish(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise RuntimeError("it waits for something")


def over_range():
    """Go over a range."""
    total = 0
    for number in range(ROUNDS):
        total = number
    return total


def over_list():
    """Go over lists and tuples."""
    total = 0
    for _ in range(ROUNDS // 8):
        for number in [1, 2, 3, 4, 5, 6, 7, 8]:
            total += number
        for number in (1, 2, 3, 4):
            total += number
    return total


def over_pairs():
    """Go over enumerated and zipped lists."""
    total = 0
    values = [1, 2, 3, 4, 5, 6, 7, 8]
    for _ in range(ROUNDS // 8):
        for index, value in enumerate(values):
            total += index + value
        for one, other in zip(values, values, strict=True):
            total += one + other
    return total


def over_iterator():
    """Go over an iterator in Python."""
    total = 0
    for number in _Countdown(ROUNDS):
        total += number
    return total


def over_generator():
    """Go over a generator."""
    total = 0
    for number in _numbers(ROUNDS):
        total += number
    return total


def over_delegating_generator():
    """Go over a generator that delegates to another one."""
    total = 0
    for number in _delegating(ROUNDS):
        total += number
    return total


def generator_expression():
    """Sum up a generator expression."""
    return sum(number * 2 for number in range(ROUNDS))


def send():
    """Send values to a generator."""
    echo = _echo()
    next(echo)
    total = 0
    for number in range(ROUNDS):
        total += echo.send(number)
    return total


def coroutine():
    """Wait for coroutines."""
    return _finish(_values(ROUNDS))


def asynchronous_generator():
    """Go over an asynchronous generator."""
    return _finish(_sum(ROUNDS))


def nested_loops():
    """Run a loop in a loop."""
    total = 0
    for row in range(ROUNDS // 50):
        for column in range(50):
            total += row ^ column
    return total


def while_loop():
    """Run a loop with a condition, and leave it in the middle."""
    number = 0
    while True:
        number += 1
        if number & 3 == 1:
            continue
        if number >= ROUNDS:
            break
    return number
