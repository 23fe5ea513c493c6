"""Values as text for a terminal: foreign text on one line, times, sizes."""


def sanitise_line(text: str) -> str:
    """Replace line breaks and control characters by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)


def format_clock(seconds: float | None) -> str:
    """Format a time in seconds as H:MM:SS; an unknown time as a dash."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def format_size(count: int) -> str:
    """Format a number of bytes as kB or MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
