"""Complaints about a YAML file name the key, the line, and what may have been meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.yaml_file import ConfigError, Vocabulary, YamlFile, did_you_mean

TEXT = """\
listen:
  port: 1

routes:
  - index: a
    semantic: {field: v}
  - index: b
"""


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        YamlFile.parse(text, "f.yaml")
    return str(caught.value)


def test_every_key_and_item_has_its_line() -> None:
    lines = YamlFile.parse(TEXT, "f.yaml").lines
    assert lines == {
        "listen": 1,
        "listen.port": 2,
        "routes": 4,
        "routes[0]": 5,
        "routes[0].index": 5,
        "routes[0].semantic": 6,
        "routes[0].semantic.field": 6,
        "routes[1]": 7,
        "routes[1].index": 7,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "f.yaml:1: invalid YAML: "),
        ("a: 1\nb: }", "f.yaml:2: invalid YAML: "),
        ("a:\n\tb: 1", "f.yaml:2: invalid YAML: found character '\\t' that cannot start any token: indent with spaces"),
        (
            "a: [\n  1",
            "f.yaml:2: invalid YAML: expected ',' or ']', but got '<stream end>', in what begins on line 1: ",
        ),
        ('a: "b\nc: d', "f.yaml:2: invalid YAML: found unexpected end of stream, in what begins on line 1: close the"),
        (
            "a: *",
            "f.yaml:1: invalid YAML: expected alphabetic or numeric character, but found '\\x00': put a value that",
        ),
        (
            "a: *b",
            "f.yaml:1: invalid YAML: found undefined alias 'b': put a value that begins with `*` or `&` in quotes",
        ),
        ("a: %b", "f.yaml:1: invalid YAML: found character '%' that cannot start any token: put a value that begins"),
        ("a: b: c", "f.yaml:1: invalid YAML: mapping values are not allowed here: check the indentation, and put a"),
        ("a: 1\n---\nb: 1", "f.yaml:2: invalid YAML: but found another document: remove the line `---`"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3: a: duplicate key, first on line 1"),
        ("x:\n  a: 1\n  a: 2", "f.yaml:3: x.a: duplicate key, first on line 2"),
        ("a: !!python/object:os.system {}", "f.yaml:1: invalid YAML: could not determine a constructor"),
        ("a: \x00", "f.yaml: invalid YAML: "),
        ("a: 2001-99-99", "f.yaml: invalid YAML: "),
        ("{[a]: 1}", "f.yaml:1: invalid YAML: found unhashable key"),
        ("&a {b: *a}", "f.yaml: invalid YAML: nested too deeply, or an alias refers to itself"),
        ("[" * 500, "f.yaml: invalid YAML: nested too deeply, or an alias refers to itself"),
    ],
)
def test_unsupported_yaml_is_rejected_with_its_line(text: str, said: str) -> None:
    assert complaint(text).startswith(said)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_is_an_empty_section(text: str) -> None:
    assert YamlFile.parse(text, "f.yaml").value == {}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("listen.port", "f.yaml:2: listen.port: no"),
        ("listen.host", "f.yaml:1: listen.host: no"),
        ("routes[0].semantic.dimensions", "f.yaml:6: routes[0].semantic.dimensions: no"),
        ("routes[1].semantic.field", "f.yaml:7: routes[1].semantic.field: no"),
        ("routes[7]", "f.yaml:4: routes[7]: no"),
        ("engine.url", "f.yaml: engine.url: no"),
        ("", "f.yaml: no"),
    ],
)
def test_a_missing_key_is_reported_at_its_section(path: str, said: str) -> None:
    assert str(YamlFile.parse(TEXT, "f.yaml").error(path, "no")) == said


@pytest.mark.parametrize(
    ("complaint", "said"),
    [
        (
            "Object contains unknown field `prot` - at `$.listen`",
            "f.yaml:1: listen.prot: unknown key, did you mean `port`?",
        ),
        (
            "Object contains unknown field `zzz` - at `$.routes[1]`",
            "f.yaml:7: routes[1].zzz: unknown key; expected one of: index, tier",
        ),
        ("Object contains unknown field `lissten`", "f.yaml: lissten: unknown key, did you mean `listen`?"),
        (
            "Invalid enum value 'fest' - at `$.routes[0].tier`",
            "f.yaml:5: routes[0].tier: unknown value 'fest', did you mean `fast`?",
        ),
        (
            "Expected `int`, got `str` - at `$.listen.port`",
            "f.yaml:2: listen.port: expected a whole number, got text: write it without quotes and without a unit",
        ),
        (
            "Expected `object`, got `array`",
            "f.yaml: expected a section with keys, got a list: write its keys in the lines below it, indented",
        ),
    ],
)
def test_errors_of_msgspec_are_translated(complaint: str, said: str) -> None:
    keys = {"": ("listen", "routes"), "listen": ("host", "port"), "routes[]": ("index", "tier")}
    allowed = Vocabulary(keys, {"tier": ("fast", "balanced")})
    assert str(YamlFile.parse(TEXT, "f.yaml").refusal(complaint, allowed)) == said


@given(st.text(max_size=20), st.lists(st.sampled_from(["fast", "balanced", "precision"]), unique=True))
def test_a_suggestion_is_one_of_the_known_words(word: str, known: list[str]) -> None:
    said = did_you_mean(word, tuple(known))
    assert any(name in said for name in known) if known else not said


@given(st.text(max_size=60))
def test_any_text_is_accepted_or_rejected(text: str) -> None:
    """Whatever a file contains, it causes no traceback."""
    try:
        read = YamlFile.parse(text, "f.yaml")
    except ConfigError as error:
        assert str(error).startswith("f.yaml")  # noqa: PT017  either is right
    else:
        assert read.value is not None
