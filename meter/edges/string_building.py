"""Text that grows piece by piece: concatenation, formatting, slices, joins."""

import pyperf

ROUNDS = 20_000


def string_building(rounds=ROUNDS):
    """Build many texts, and return the length of all."""
    length = 0
    text = ""
    for number in range(rounds):
        text += f"{number:x},"
        word = "item" + str(number)
        length += len(" ".join([word.upper(), word[1:-1], word.replace("t", "--")]))
        if len(text) > 400:
            length += len(text)
            text = ""
    return length + len(text)


if __name__ == "__main__":
    pyperf.Runner().bench_func("string_building", string_building)
