"""Who may ask the admin API, and how the program ends: what the file may say of it."""

import pytest

from splitproxy.control.loader import tokens

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("address", [":9900", "0.0.0.0:9900", "10.0.0.5:9900", "'[::]:9900'"])
def test_an_admin_api_for_others_needs_tokens_or_a_clear_word(address, refuse, load_text, good):
    admin = f"address: {address}" if address.startswith("'") else f"address: '{address}'"
    (problem,) = refuse(good + f"admin: {{{admin}}}")
    assert (problem.path, "add tokens" in problem.hint) == ("admin.address", True)
    assert load_text(good + f"admin: {{{admin}, insecure: true}}")
    assert load_text(good + f"admin: {{{admin}, tokens: [{{name: a, value: {TOKEN}}}]}}")


@pytest.mark.parametrize("address", ["127.0.0.1:9900", "127.8.8.8:1", "[::1]:9900", "localhost:9900"])
def test_on_loopback_nothing_is_needed(address, load_text, good):
    assert load_text(good + f"admin: {{address: '{address}'}}")


@pytest.mark.parametrize(
    ("written", "path", "message"),
    [
        ("{name: a, value: short}", "admin.tokens[0].value", "at least 16 characters"),
        (f"{{name: a, value: {TOKEN}, role: admin}}", "admin.tokens[0].role", "read or operator is wanted"),
        (f"{{name: a, value: {TOKEN}}}, {{name: a, value: {TOKEN}1}}", "admin.tokens[1].name", "stands twice"),
        (f"{{name: a, value: {TOKEN}}}, {{name: b, value: {TOKEN}}}", "admin.tokens[1].value", "the same token"),
        ("{name: a, value: {file: nowhere}}", "admin.tokens[0].value.file", "nowhere"),
        ("{name: a}", "admin.tokens[0].value", "'value' is missing"),
        (f"{{value: {TOKEN}}}", "admin.tokens[0].name", "'name' is missing"),
    ],
)
def test_a_token_that_is_no_good_is_refused(written, path, message, refuse, good):
    (problem,) = refuse(good + f"admin: {{tokens: [{written}]}}")
    assert (problem.path, message in problem.message) == (path, True), problem


def test_a_short_token_in_a_file_is_refused(refuse, good, tmp_path):
    (tmp_path / "token").write_text("short\n")
    (problem,) = refuse(good + "admin: {tokens: [{name: a, value: {file: token}}]}")
    assert problem.path == "admin.tokens[0].value"


def test_tokens_are_not_shown_and_not_kept(load_text, good, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}-file\n")
    text = f"admin: {{tokens: [{{name: a, value: {TOKEN}}}, {{name: b, role: operator, value: {{file: token}}}}]}}"
    loaded = load_text(good + text)
    assert TOKEN not in repr(loaded.public)
    found = list(tokens(loaded.plain))
    assert [(name, role, len(digest)) for name, role, digest in found] == [("a", "read", 64), ("b", "operator", 64)]
    assert TOKEN not in repr(loaded.plain)
    assert TOKEN not in repr(found)


def test_the_end_takes_as_long_as_the_file_says(load_text, good):
    assert load_text(good).plain["drain"] == {"delay": 0.0, "timeout": 25.0}
    assert load_text(good + "drain: {delay: 5s, timeout: 0s}").plain["drain"] == {"delay": 5.0, "timeout": 0.0}
