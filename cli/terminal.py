"""Safe output of foreign text on a terminal."""


def sanitise_line(text: str) -> str:
    """Replace line breaks and control characters by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)
