"""How many tokens a text has, about: without a tokenizer, and rather too many than too few."""

import string

_WORDS = (string.ascii_letters + " ").encode()


def estimate_tokens(text: str) -> int:
    """Four letters a token, two of ASCII's other characters, one of any other script, and three tokens an emoji.

    Chinese and Korean have one token a character or a little less, where four characters a token would be far too few.
    """
    ascii_part = text.encode("ascii", "ignore")
    others = len(ascii_part.translate(None, _WORDS))
    letters = len(ascii_part) - others
    # UTF-16 has two units for what is beyond the basic plane.
    beyond = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)
    within = len(text) - len(ascii_part) - beyond
    return -(-(letters + 2 * others + 4 * within + 12 * beyond) // 4)
