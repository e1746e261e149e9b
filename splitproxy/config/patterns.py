"""Regular expressions: RE2's dialect, so that no pattern and no subject can stall a worker."""

from splitproxy.config.fields import wrong
from splitproxy.config.problems import clipped
from splitproxy.core.matching import compile_pattern
from splitproxy.errors import ConfigError

_LONGEST = 4096


def pattern(given: str) -> str:
    """Return `given`, a regular expression that workers can compile; it is matched against whole values."""
    if len(given) > _LONGEST:
        raise wrong(f"a regular expression has at most {_LONGEST} characters, not {len(given)}")
    try:
        compile_pattern(given)
    except ConfigError as error:
        raise wrong(*_explained(given, str(error))) from None
    return given


def _explained(given: str, said: str) -> tuple[str, str]:
    reason, _, fragment = said.partition(": ")
    hint = "RE2 has no look-around and no back-references" if fragment.startswith(("(?", "\\")) else ""
    message = f"not a usable regular expression: {reason}"
    if fragment and fragment in given:
        at = given.index(fragment) + 1
        return f"{message} at character {at}: {clipped(fragment)}", hint
    return f"{message}: {fragment}" if fragment else message, hint
