"""Lists, tuples, dictionaries, sets and slices."""

ROUNDS = 512


def list_items():
    """Read and write items of a list."""
    values = [1, 2, 3, 4, 5, 6, 7, 8]
    for number in range(ROUNDS):
        values[number & 7] = values[3] + values[-1] & 0xFF
    return values


def list_append():
    """Append to a list, and take the items off again."""
    values = []
    for number in range(ROUNDS):
        values.append(number)
        values.append(number)
        values.pop()
        if len(values) > 100:
            values.clear()
    return values


def list_build():
    """Build lists, and extend them."""
    values = []
    for number in range(ROUNDS):
        values = [number, number + 1, *values[:2]]
    return values


def list_slices():
    """Read and write slices of a list."""
    values = [1, 2, 3, 4, 5, 6, 7, 8]
    for number in range(ROUNDS):
        end = number & 3
        values[0:2] = values[end : end + 2]
    return values


def list_comprehension():
    """Build lists by comprehensions."""
    values = []
    for _ in range(ROUNDS // 8):
        values = [number * 2 for number in range(8) if number != 3]
    return values


def list_contains():
    """Search in a list."""
    values, count = [1, 2, 3, 4], 0
    for number in range(ROUNDS):
        if number & 7 in values:
            count += 1
        if number not in values:
            count += 1
    return count


def tuple_items():
    """Build tuples, and read their items."""
    total = 0
    for number in range(ROUNDS):
        pair = (number, total)
        total = pair[0] + pair[1] & 0xFFFF
    return total


def nested_tuples():
    """Take nested tuples apart."""
    total = 0
    points = (((1, 2), 3), ((4, 5), 6))
    for number in range(ROUNDS):
        (x, y), z = points[number & 1]
        total = x + y + z
    return total


def unpack():
    """Take sequences of each kind apart."""
    values, pair, text = [1, 2, 3], (4, 5), "xyz"
    total = 0
    for _ in range(ROUNDS):
        one, two, three = values
        four, five = pair
        first, second, third = text
        total = one + two + three + four + five
    return total, first, second, third


def unpack_the_rest():
    """Take a sequence apart with a star."""
    rest = []
    for number in range(ROUNDS):
        first, *rest = (number, 2, 3)
        *rest, last = [number, first, 3]
    return rest, last


def swap():
    """Exchange values."""
    x, y, z = 1, 2, 3
    for _ in range(ROUNDS):
        x, y = y, x
        x, y, z = z, x, y
    return x, y, z


def dict_items():
    """Read and write items of a dictionary with strings as keys."""
    values = {"spam": 1, "eggs": 2}
    for number in range(ROUNDS):
        values["spam"] = values["eggs"] + 1
        values["eggs"] = number
    return values


def dict_ints():
    """Read, write and delete items of a dictionary with integers as keys."""
    values = {number: number for number in range(16)}
    for number in range(ROUNDS):
        values[number & 15] = values[number & 7]
        values[99] = number
        del values[99]
    return values


def dict_contains():
    """Search for keys of a dictionary, and take defaults."""
    values, count = {"spam": 1, "eggs": 2}, 0
    for _ in range(ROUNDS):
        if "spam" in values:
            count += values.get("ham", 1)
        if "ham" not in values:
            count += 1
    return count


def dict_build():
    """Build and merge dictionaries."""
    values = {}
    for number in range(ROUNDS):
        values = {"number": number, "other": 2}
        values = {**values, "third": 3}
        values |= {"number": 5}
    return values


def dict_comprehension():
    """Build dictionaries by comprehensions."""
    values = {}
    for _ in range(ROUNDS // 8):
        values = {number: number for number in range(8)}
    return values


def dict_views():
    """Go over the keys, values and items of a dictionary."""
    values, total = {"spam": 1, "eggs": 2, "ham": 3}, 0
    for _ in range(ROUNDS // 3):
        for name, value in values.items():
            total += value + len(name)
        for value in values.values():
            total += value
    return total


def sets():
    """Build sets, add to them, and search in them."""
    found, count = set(), 0
    for number in range(ROUNDS):
        found.add(number & 31)
        if 5 in found:
            count += 1
        if number & 3 in {1, 2, number}:
            count += 1
    return count


def set_constant():
    """Search in a set that is a constant."""
    count = 0
    for number in range(ROUNDS):
        if number & 7 in {1, 2, 3}:
            count += 1
    return count


def slices():
    """Take slices with a step."""
    values = list(range(16))
    for number in range(ROUNDS):
        part = values[number & 3 :: 2]
    return part
