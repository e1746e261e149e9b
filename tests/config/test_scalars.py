"""What a plain word means, and what the environment puts in its place."""

import pytest

from splitproxy.config.scalars import UnsetVariable, resolve, substitute


@pytest.mark.parametrize(
    "text",
    [
        *("no", "on", "yes", "off", "Y", "1:30", "190:20:30", "010", "0o10", "0x1F", "1_000", "2026-11-23"),
        *("2026-11-23T11:00:00Z", ".inf", ".nan", "-.inf", "1.", ".", "-", "+", "e5", "1e", "--1", "<<", "="),
        *("0.0.0.0", "9" * 40, "1e500"),
    ],
)
def test_a_word_that_readers_of_yaml_disagree_about_stays_what_was_typed(text: str) -> None:
    assert resolve(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("10", 10), ("-3", -3), ("+4", 4), ("1.10", 1.1), (".5", 0.5), ("1e3", 1000.0), ("0.01", 0.01)],
)
def test_a_decimal_number_is_a_number(text: str, value: float) -> None:
    resolved = resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("null", None), ("~", None), ("", None)])
def test_booleans_and_null_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) is value


ENVIRONMENT = {"PORT": "8080", "EMPTY": "", "BRACES": "${PORT}"}


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("${PORT}", "8080"),
        ("127.0.0.1:${PORT}", "127.0.0.1:8080"),
        ("${PORT}${PORT}", "80808080"),
        ("${NONE:-x}", "x"),
        ("${NONE:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"),
        ("${PORT:-x}", "8080"),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${PORT}", "${PORT}"),
        ("$$${PORT}", "$${PORT}"),
        ("a$b $ {PORT} $PORT", "a$b $ {PORT} $PORT"),
        ("${BRACES}", "${PORT}"),
    ],
)
def test_variables_are_replaced_once_as_in_a_shell(text: str, replaced: str) -> None:
    assert substitute(text, ENVIRONMENT, {}) == replaced


def test_every_variable_that_was_looked_up_is_noted() -> None:
    used: dict[str, str | None] = {}
    substitute("${PORT} ${NONE:-x} $${EMPTY}", ENVIRONMENT, used)
    assert used == {"PORT": "8080", "NONE": None}


@pytest.mark.parametrize("text", ["${NONE}", "${", "${}", "${1A}", "${A-b}", "${A B}", "x ${PORT"])
def test_a_variable_that_is_unset_or_malformed_is_refused(text: str) -> None:
    with pytest.raises(UnsetVariable):
        substitute(text, ENVIRONMENT, {})
