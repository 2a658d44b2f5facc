"""Strings and bytes."""

ROUNDS = 512
WORDS = ["spam", "ham", "eggs", "spam and eggs"]


def concatenate():
    """Join two strings."""
    left, right = "spam", "eggs"
    for _ in range(ROUNDS):
        joined = left + right
    return joined


def append():
    """Append to a string in place."""
    text = ""
    for number in range(ROUNDS):
        text += "x"
        if number & 31 == 0:
            text = ""
    return text


def index():
    """Take characters of a string."""
    text, count = "abcdefgh", 0
    for number in range(ROUNDS):
        if text[number & 7] == "c":
            count += 1
    return count


def cut():
    """Take slices of a string."""
    text, part = "abcdefgh", ""
    for number in range(ROUNDS):
        end = number & 7
        part = text[:end]
        part = text[1:4]
    return part


def compare():
    """Compare strings."""
    count = 0
    for number in range(ROUNDS):
        word = WORDS[number & 3]
        if word == "ham":
            count += 1
        if word != "eggs":
            count += 1
        if word < "spam":
            count += 1
    return count


def contains():
    """Search in a string."""
    count = 0
    for number in range(ROUNDS):
        if "eggs" in WORDS[number & 3]:
            count += 1
    return count


def format_values():
    """Format values into a string."""
    text = ""
    for number in range(ROUNDS):
        text = f"{number} and {text[:3]!r}, {number:>5}"
    return text


def percent():
    """Format with the operator."""
    text = ""
    for number in range(ROUNDS):
        text = "%d of %s" % (number, "spam")  # noqa: UP031 - the operator is what counts
    return text


def convert():
    """Make strings of values, and integers of strings."""
    total = 0
    for number in range(ROUNDS):
        total += int(str(number & 15))
    return total


def methods():
    """Call methods of a string."""
    count = 0
    for number in range(ROUNDS):
        word = WORDS[number & 3]
        if word.startswith("spam"):
            count += len(word.upper().split())
    return count


def join():
    """Join a list of strings."""
    text = ""
    for _ in range(ROUNDS):
        text = ",".join(WORDS)
    return text


def characters():
    """Go over a string, and convert its characters."""
    total = 0
    for _ in range(ROUNDS // 8):
        for character in "abcdefgh":
            total += ord(character)
            character = chr(total & 127)
    return total


def byte_strings():
    """Take bytes of a byte string."""
    data, total = b"abcdefgh", 0
    for number in range(ROUNDS):
        total += data[number & 7]
    return total
