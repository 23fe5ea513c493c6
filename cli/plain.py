"""Text of others on a terminal."""


def one_line(text: str) -> str:
    """On one line, without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
