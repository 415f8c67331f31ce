"""Licences add up, a choice is a choice, and a word that nobody knows allows nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm.specialists.licences import LICENCES, MAX_LENGTH, allows_commercial_use, combine, parts, unknown_words


def test_the_table_agrees_with_the_names_in_it():
    for name, licence in LICENCES.items():
        assert licence.commercial is not ("NC" in name.split("-") or name == "research-only"), name
        assert licence.share_alike is ("SA" in name.split("-") or name == "ODbL-1.0"), name


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (("CC-BY-NC-4.0", "CC-BY-4.0"), "CC-BY-4.0 AND CC-BY-NC-4.0"),
        (("cc-by-4.0", "CC BY 4.0", "CC-BY-4.0"), "CC-BY-4.0"),
        ((None, "MIT"), "MIT"),
        (("", "MIT"), "MIT AND unknown"),
        ((None, None), "unknown"),
        (("MIT AND Apache-2.0", "Apache-2.0"), "Apache-2.0 AND MIT"),
        (("MIT OR CC-BY-NC-4.0", "CC0-1.0"), "(MIT OR CC-BY-NC-4.0) AND CC0-1.0"),
        (("((MIT))", "(MIT AND CC0-1.0)"), "CC0-1.0 AND MIT"),
    ],
)
def test_combine(given_: tuple[str | None, ...], expected: str):
    assert combine(*given_) == expected
    assert combine(expected, expected) == expected, "combining again changes nothing"


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("CC-BY-NC-SA-4.0", False),
        ("CC-BY-4.0 AND CC-BY-NC-4.0", False),
        ("CC-BY-NC-4.0 OR Apache-2.0", True),
        ("CC-BY-NC-4.0 OR research-only", False),
        ("CC-BY-NC-4.0 OR (MIT AND research-only)", False),
        ("(MIT OR CC-BY-NC-4.0) AND CC0-1.0", True),
        ("(MIT OR CC-BY-NC-4.0) AND research-only", False),
        ("unknown", False),
        ("", False),
        ("  ", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT and CC-BY-NC-4.0", False),  # SPDX's words are upper case; a word in lower case is not understood
        ("MIT WITH something", False),
        ("see LICENSE.txt", False),
    ],
)
def test_commercial_use(expression: str, allowed: bool):
    assert allows_commercial_use(expression) is allowed


def test_unknown_words_are_named_once():
    assert unknown_words("MIT AND Foo AND (Bar OR Foo) AND CC0-1.0") == ("Foo", "Bar")
    assert unknown_words("MIT AND CC-BY-NC-4.0") == ()
    assert unknown_words("") == ("unknown",)


def test_an_absurd_expression_is_one_unknown_word_and_quickly_so():
    for text in ("(" * 100_000, "MIT OR " * 50_000 + "MIT", "(A OR " * 5_000 + "A" + ")" * 5_000):
        assert len(text) > MAX_LENGTH
        assert not allows_commercial_use(text)
        assert len(parts(text)) == 1
    nested = "(MIT OR " * 100 + "MIT" + ")" * 100
    assert allows_commercial_use(nested)


WORDS = st.sampled_from([*LICENCES, "unknown", "Foo-1.0"])


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(WORDS, min_size=1, max_size=5))
def test_what_is_made_from_more_allows_no_more(a: list[str], b: list[str]):
    both = combine(*a, *b)
    assert allows_commercial_use(both) is (allows_commercial_use(combine(*a)) and allows_commercial_use(combine(*b)))
    assert both == combine(*reversed(b), *a), "order does not matter"
    assert set(parts(both)) == {*a, *b}, "none is lost"
