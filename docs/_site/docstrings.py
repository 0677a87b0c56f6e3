"""Docstrings are written for `help()`, with roles and `::` as in reStructuredText; the site is Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import griffe

if TYPE_CHECKING:
    from typing import Any

ROLE = re.compile(r":(?:class|meth|func|mod):`~?(?:[\w.]*\.)?(\w+)`")
LITERAL = re.compile(r"(?m)^(?P<before>.*?)::$")


class Markdown(griffe.Extension):
    """Turns what our docstrings use of reStructuredText into Markdown, before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever has one."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """The same text for Markdown."""
    text = LITERAL.sub(lambda found: found["before"] and found["before"] + ":", text)
    return ROLE.sub(r"`\1`", text.replace("``", "`"))
