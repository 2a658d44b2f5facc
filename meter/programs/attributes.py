"""Attributes of instances, classes and modules."""

import math

ROUNDS = 512


class _Point:
    kind = "point"

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def norm(self):
        return self.x * self.x + self.y * self.y

    @property
    def total(self):
        return self.x + self.y

    @classmethod
    def origin(cls):
        return cls.kind

    @staticmethod
    def double(value):
        return value * 2


class _Deep(_Point):
    def norm(self):
        return super().norm() + 1

    def __getattr__(self, name):
        return len(name)


class _Slots:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y


class _Descriptor:
    def __get__(self, instance, owner):
        return 7

    def __set__(self, instance, value):
        instance.x = value


class _Described:
    value = _Descriptor()


class _Hooked:
    def __getattribute__(self, name):
        return name


def instance():
    """Read and write attributes of an instance."""
    point = _Point(1, 2)
    for number in range(ROUNDS):
        point.x = point.y + number & 0xFF
        point.y = point.x
    return point.x


def instance_dict():
    """Read and write attributes of an instance whose dictionary was taken."""
    point = _Point(1, 2)
    vars(point)["z"] = 3
    for number in range(ROUNDS):
        point.x = point.z + number & 0xFF
    return point.x


def slots():
    """Read and write slots."""
    point = _Slots(1, 2)
    for number in range(ROUNDS):
        point.x = point.y + number & 0xFF
    return point.x


def two_classes():
    """Read an attribute of instances of two classes in turn."""
    points, total = (_Point(1, 2), _Slots(3, 4)), 0
    for number in range(ROUNDS):
        total += points[number & 1].x
    return total


def of_class():
    """Read attributes of a class, of the class itself and by an instance."""
    point, count = _Point(1, 2), 0
    for _ in range(ROUNDS):
        if _Point.kind == point.kind:
            count += 1
    return count


def of_module():
    """Read attributes of a module."""
    total = 0.0
    for _ in range(ROUNDS):
        total = math.pi + math.e
    return total


def method():
    """Call a method."""
    point, total = _Point(1, 2), 0
    for _ in range(ROUNDS):
        total = point.norm()
    return total


def method_of_slots():
    """Call methods of a class without a dictionary."""
    values, total = frozenset({1, 2}), 0
    for _ in range(ROUNDS):
        total += len(values.union((3,)))
    return total


def class_method():
    """Call class methods and static methods."""
    point, total = _Point(1, 2), 0
    for _ in range(ROUNDS):
        total = len(_Point.origin()) + point.double(3)
    return total


def read_property():
    """Read a property."""
    point, total = _Point(1, 2), 0
    for _ in range(ROUNDS):
        total = point.total
    return total


def call_super():
    """Call a method of the base class."""
    point, total = _Deep(1, 2), 0
    for _ in range(ROUNDS):
        total = point.norm()
    return total


def missing():
    """Read an attribute that only a hook has."""
    point, total = _Deep(1, 2), 0
    for _ in range(ROUNDS):
        total = point.missing
    return total


def hooked():
    """Read an attribute of a class that overrides reading attributes."""
    thing, name = _Hooked(), ""
    for _ in range(ROUNDS):
        name = thing.something
    return name


def descriptor():
    """Read and write an attribute by a descriptor."""
    thing, total = _Described(), 0
    for _ in range(ROUNDS):
        thing.value = 3
        total = thing.value
    return total


def bound_method():
    """Keep a method, and call it."""
    point, total = _Point(1, 2), 0
    norm = point.norm
    for _ in range(ROUNDS):
        total = norm()
    return total


def delete():
    """Delete an attribute, and set it again."""
    point = _Point(1, 2)
    for number in range(ROUNDS):
        del point.x
        point.x = number
    return point.x


def by_name():
    """Read attributes by their names."""
    point, total = _Point(1, 2), 0
    for _ in range(ROUNDS):
        total = getattr(point, "x") + hasattr(point, "z")  # noqa: B009 - what is called is what counts
    return total
