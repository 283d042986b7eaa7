"""How long to wait before a model is asked again."""

# More than this nobody waits for: the next model of the chain is asked, or the client is told when to come back.
LONGEST_SECONDS = 8.0
FIRST_SECONDS = 0.5


def pause(attempt: int, retry_after: float, chance: float) -> float | None:
    """Seconds before attempt ATTEMPT + 1, or None to give up.

    The pause doubles from half a second; CHANCE, from 0 to 1, spreads it over its upper half, so that clients that
    failed together do not come back together. A wait that the provider asks for is kept, if it is short.
    """
    if retry_after > LONGEST_SECONDS:
        return None
    # The exponent is bounded, since a float's range is.
    doubled = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 16))
    return max(retry_after, doubled * (1 + chance) / 2)
