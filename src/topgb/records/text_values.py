"""Tell text from numbers among the values of byte features."""

import unicodedata


def is_text(value: bytes) -> bool:
    """Whether a value is text in UTF-8 or Latin-1, perhaps padded with zero bytes to a fixed width."""
    content = value.rstrip(b"\0")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        # Any byte is a sign of Latin-1, but most letters of a text are ASCII's.
        text = content.decode("latin-1")
        if 4 * sum(map(str.isascii, text)) < 3 * len(text):
            return False
    # Emoji are joined by signs of category Cf.
    return bool(text) and all(c.isprintable() or c.isspace() or unicodedata.category(c) == "Cf" for c in text)
