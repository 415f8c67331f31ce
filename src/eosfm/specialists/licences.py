"""Licences, and what becomes of them when weights are trained from weights and data: they add up, none is lost.

Expressions are SPDX's: "A AND B" (both hold), "A OR B" (the user chooses), parentheses. Not legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNKNOWN = "unknown"
MAX_LENGTH = 1000
"""Characters; a longer expression is not one, and is read as one unknown word."""


@dataclass(frozen=True)
class Licence:
    """What a licence allows, as far as using the trained weights goes."""

    commercial: bool
    share_alike: bool = False


LICENCES: dict[str, Licence] = {
    "CC0-1.0": Licence(True),
    "PDDL-1.0": Licence(True),
    "public-domain": Licence(True),
    "MIT": Licence(True),
    "Apache-2.0": Licence(True),
    "BSD-2-Clause": Licence(True),
    "BSD-3-Clause": Licence(True),
    "CC-BY-3.0": Licence(True),
    "CC-BY-4.0": Licence(True),
    "CC-BY-SA-3.0-IGO": Licence(True, share_alike=True),
    "CC-BY-SA-4.0": Licence(True, share_alike=True),
    "CDLA-Permissive-1.0": Licence(True),
    "CDLA-Permissive-2.0": Licence(True),
    "ODC-By-1.0": Licence(True),
    "ODbL-1.0": Licence(True, share_alike=True),
    "OGL-UK-3.0": Licence(True),
    "etalab-2.0": Licence(True),
    "copernicus-open": Licence(True),
    "CC-BY-NC-3.0": Licence(False),
    "CC-BY-NC-4.0": Licence(False),
    "CC-BY-NC-ND-4.0": Licence(False),
    "CC-BY-NC-SA-3.0": Licence(False, share_alike=True),
    "CC-BY-NC-SA-3.0-IGO": Licence(False, share_alike=True),
    "CC-BY-NC-SA-4.0": Licence(False, share_alike=True),
    "research-only": Licence(False),
}
"""SPDX identifiers where there is one; a word that is not here is not known to allow anything"""

_SPELT = {name.lower(): name for name in LICENCES}


def parts(expression: str) -> list[str]:
    """What must hold together in ``expression``, spelt as in `LICENCES` where known; a choice stays whole, in parentheses."""
    text = _bare(expression)
    if not text:
        return []
    if len(options := _split(text, "OR")) > 1:
        return ["(" + " OR ".join(_joined(o) for o in options) + ")"]
    if len(terms := _split(text, "AND")) > 1:
        return [p for t in terms for p in parts(t)]
    return [_SPELT.get(re.sub(r"\s+", "-", text.lower()), text)]


def combine(*expressions: str | None) -> str:
    """The licence of something made from all of these: "A AND B", each once, sorted; "unknown" where nothing is said.

    None stands for something that has no licence to pass on (random weights); an empty text is unknown.

    >>> combine("CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-4.0")
    'CC-BY-4.0 AND CC-BY-NC-4.0'
    """
    found = {p for e in expressions if e is not None for p in (parts(e) or [UNKNOWN])}
    return " AND ".join(sorted(found)) or UNKNOWN


def allows_commercial_use(expression: str) -> bool:
    """Whether ``expression`` is known to allow commercial use: all of "A AND B", any of "A OR B"; unknown words do not."""
    found = parts(expression)
    return bool(found) and all(_allows(p) for p in found)


def unknown_words(expression: str) -> tuple[str, ...]:
    """The licences in ``expression`` that `LICENCES` does not have, to be named when they decide something."""
    words = [w for p in (parts(expression) or [UNKNOWN]) for w in _leaves(p)]
    return tuple(dict.fromkeys(w for w in words if w not in LICENCES))


def _allows(part: str) -> bool:
    options = _split(_bare(part), "OR")
    if len(options) > 1:
        return any(allows_commercial_use(o) for o in options)
    return part in LICENCES and LICENCES[part].commercial


def _leaves(part: str) -> list[str]:
    options = _split(_bare(part), "OR")
    return [part] if len(options) == 1 else [w for o in options for p in parts(o) for w in _leaves(p)]


def _joined(expression: str) -> str:
    found = parts(expression)
    return found[0] if len(found) == 1 else " AND ".join(found)


def _bare(text: str) -> str:
    """``text`` without parentheses around the whole of it."""
    text = text.strip()
    while len(text) <= MAX_LENGTH and text.startswith("(") and text.endswith(")") and _balanced(text[1:-1]):
        text = text[1:-1].strip()
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if depth < 0:
            return False
    return depth == 0


def _split(text: str, word: str) -> list[str]:
    """``text`` at every ``word`` that stands outside parentheses; whole where they do not match or it is too long."""
    if len(text) > MAX_LENGTH or not _balanced(text):
        return [text]
    out, start = [], 0
    for m in re.finditer(rf"(?<![^\s)]){word}(?![^\s(])", text):
        if _balanced(text[start : m.start()]) and text[start : m.start()].strip() and text[m.end() :].strip():
            out.append(text[start : m.start()])
            start = m.end()
    return [t.strip() for t in [*out, text[start:]]]
