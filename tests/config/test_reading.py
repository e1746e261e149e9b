"""What is YAML but surprising, and what is not YAML: where it is, and what is said about it."""

import pytest

LISTENER = "listeners: [{address: 127.0.0.1:8080}]\n"


def marked(text):
    """Return a text without its mark `«`, and the line and column where the mark was."""
    before, _, _ = text.partition("«")
    return text.replace("«", ""), before.count("\n") + 1, len(before) - before.rfind("\n")


@pytest.mark.parametrize(
    ("text", "path", "message", "hint"),
    [
        ("a: 1\n«a: 2", "a", "the key 'a' stands twice in this mapping; first on line 1", ""),
        ("a: {b: 1, «b: 2}", "a.b", "the key 'b' stands twice", ""),
        ("a: «null", "a", "null is not a value here", "leave the key out"),
        ("a: «~", "a", "null is not a value here", "leave the key out"),
        ("a:«\nb: 1", "a", "the value is missing", "leave the key out"),
        ("a: [1, «null, 2]", "a[1]", "null is not a value here", ""),
        ("a: &x {b: 1}\nc:\n  «<<: *x", "c.<<", "merge keys ('<<') are not part of YAML 1.2", "use an alias"),
        ("a: «*x", "a", "the alias *x has no anchor before it", "put quotes around"),
        ("a: &x [«*x]", "a[0]", "the alias *x has no anchor before it", "put quotes around"),
        ("a: «!!python/object:os.system x", "a", "has no meaning here", "leave the tag out"),
        ("a: «!!int '1'", "a", "has no meaning here", "leave the tag out"),
        ("a: «!x [1]", "a", "has no meaning here", "leave the tag out"),
        ("? «[a]\n: b", "", "a key must be plain text", ""),
        ("a: &x b\n«*x : c", "", "a key must be plain text, not an alias", ""),
        ("a: 1\n«---\nb: 2", "", "a second document in one file", "a folder may hold many files"),
        ("a: b«: c", "", "a second ': ' where there can be one", "put quotes around"),
        ("a:\n«\t- b", "", "cannot begin a value", "indent with spaces, not with tabs"),
        ("a: «@b", "", "cannot begin a value", "put quotes around"),
        ("a: «'b", "", "a quote that is not closed", ""),
        ("a: {weight: $«{W}}", "", "a bracket that is not closed", 'a variable needs quotes: "${NAME}"'),
        ("a: 1\n b«: 2", "", "a second ': '", ""),
        ("- a\n«b: c", "", "a '- ' was expected", "indentation"),
        ("a: [1,\n 2\nb«: c", "", "a bracket that is not closed, or a comma is missing", "stands on line 1"),
        ("a: \"\\x«\"", "", "not YAML", ""),
        ("a: b«\x01c", "", "the character U+0001 may not stand in a file", ""),
        ("a: é«\u2028c", "", "the character U+2028 may not stand in a file", ""),
        ("«- a", "", "a file is a mapping of keys", ""),
        ("«just text", "", "a file is a mapping of keys", ""),
        ("a: " + "[" * 63 + "«[", "a" + "[0]" * 63, "nested more than 64 deep", ""),
        ("a: «${NOT_SET}", "a", "the environment variable NOT_SET is not set", "${NOT_SET:-value}"),
        ("a: «x${", "a", "a variable that is not well formed", "$${"),
    ],
)  # fmt: skip
def test_bad_yaml_is_refused_with_its_place(refuse, text, path, message, hint):
    clean, line, column = marked(text)
    problem = next(found for found in refuse(clean) if message in found.message)
    assert (problem.line, problem.column, problem.path) == (line, column, path)
    assert hint in problem.hint


def test_the_source_line_is_shown_with_a_caret(refuse):
    (problem,) = refuse(LISTENER + "a: null\n")[:1]
    assert str(problem).endswith(
        "shop.yaml:2:4: a: null is not a value here\n"
        "  2 | a: null\n"
        "    |    ^\n"
        "  hint: give a value, or leave the key out to get its default"
    )


def test_of_a_long_line_the_part_around_the_place_is_shown(refuse):
    (problem,) = (found for found in refuse(f"{{x: '{'y' * 5000}', a: null}}") if "null" in found.message)
    assert problem.source[problem.caret :].startswith("null")
    assert len(problem.source) <= 160


def test_control_characters_never_reach_the_terminal(refuse):
    problems = refuse('"a\\e[31m\\u202e": 1\n')
    assert all(letter.isprintable() or letter == "\n" for problem in problems for letter in str(problem))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: caf\xe9\n", "byte 0xe9 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "is UTF-16"),
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"---\n", "a file is a mapping of keys"),
    ],
)
def test_a_file_that_holds_no_text_is_refused(refuse, data, message):
    assert any(message in problem.message for problem in refuse(data))


def test_a_byte_that_is_not_utf_8_is_found(refuse):
    (problem,) = refuse("a: 1\nb: é".encode() + b"\xff")
    assert (problem.line, problem.column) == (2, 5)


def test_a_byte_order_mark_and_crlf_are_taken(load_text):
    assert load_text(b"\xef\xbb\xbf" + LISTENER.replace("\n", "\r\n").encode()).plain["listeners"]


def test_an_alias_stands_for_its_anchor(load_text, good):
    loaded = load_text(
        good
        + """
routes:
  - {name: one, rules: [{backendRefs: &both [{name: a}, {name: b}]}]}
  - {name: two, hostnames: [x.y], rules: [{backendRefs: *both}]}
"""
    )
    one, two = loaded.plain["routes"]
    assert one["rules"][0]["backendRefs"] == two["rules"][0]["backendRefs"]


def test_an_error_within_an_alias_is_shown_where_it_was_written(refuse, good):
    (first, second) = refuse(
        good
        + """
routes:
  - {name: one, rules: [{backendRefs: &both [{name: c}]}]}
  - {name: two, rules: [{backendRefs: *both}]}
"""
    )
    assert (first.line, second.line) == (8, 8)
    assert {first.path, second.path} == {
        "routes[0].rules[0].backendRefs[0].name",
        "routes[1].rules[0].backendRefs[0].name",
    }


def test_an_alias_bomb_is_refused_at_once(refuse):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert any("aliases add more than 250,000 values" in problem.message for problem in refuse("\n".join(lines)))


def test_a_file_that_is_too_large_is_not_read(refuse):
    (problem,) = refuse(b"#" * ((32 << 20) + 1))
    assert problem.message == "is larger than 32 MiB"


def test_words_that_yaml_1_1_would_change_stay_text(load_text, good):
    loaded = load_text(
        good
        + """
routes:
  - name: no
    hostnames: [no, on]
    rules:
      - name: on
        matches:
          - headers:
              - {name: x-a, value: 010}
              - {name: x-b, value: 1:30}
              - {name: x-c, value: 2026-11-23}
              - {name: x-d, value: 0x1F}
              - {name: x-e, value: yes}
        backendRefs: [{name: a}]
"""
    )
    (route,) = loaded.plain["routes"]
    assert (route["name"], route["hostnames"], route["rules"][0]["name"]) == ("no", ["no", "on"], "on")
    values = [header["value"] for header in route["rules"][0]["matches"][0]["headers"]]
    assert values == ["010", "1:30", "2026-11-23", "0x1F", "yes"]
