"""Coroutines that await coroutines, without an event loop."""

import pyperf

ROUNDS = 6_000
DEPTH = 8


class Suspend:
    """Gives control back to whoever runs the coroutine, once."""

    def __await__(self):
        return (yield self)


async def chain(depth):
    """Await the next one; the innermost suspends."""
    if depth:
        return await chain(depth - 1) + 1
    await Suspend()
    return 0


def coroutine_chain(rounds=ROUNDS):
    """Run many chains to their end."""
    total = 0
    for _ in range(rounds):
        coroutine = chain(DEPTH)
        coroutine.send(None)
        try:
            coroutine.send(None)
        except StopIteration as ending:
            total += ending.value
    return total


if __name__ == "__main__":
    pyperf.Runner().bench_func("coroutine_chain", coroutine_chain)
