"""Attributes that `__getattr__` finds, as proxies and lazy modules have them, beside ordinary ones."""

import pyperf

ROUNDS = 40_000


class Target:
    """What the proxy stands for."""

    def __init__(self):
        self.count = 3

    def double(self, value):
        """Return twice the value."""
        return value * 2


class Proxy:
    """Finds in another object what it does not have itself."""

    def __init__(self, target):
        self._target = target
        self.own = 1

    def __getattr__(self, name):
        return getattr(self._target, name)


def getattr_hook(rounds=ROUNDS):
    """Use own attributes, and the other object's."""
    proxy = Proxy(Target())
    total = 0
    for number in range(rounds):
        total += proxy.count + proxy.own
        total += proxy.double(number)
    return total


if __name__ == "__main__":
    pyperf.Runner().bench_func("getattr_hook", getattr_hook)
