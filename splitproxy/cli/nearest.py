"""What somebody may have meant who mistyped a word."""

from collections.abc import Iterable


def meant(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean X?` for the known word that is nearest to `word`, nothing where none is near."""
    from difflib import get_close_matches  # nobody waits for it who types well

    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {close[0]}?" if close else ""
