"""LaTeX in answers as MathML, which browsers draw without a script or a font of their own."""

import html
import re
from xml.etree import ElementTree

from markupsafe import Markup, escape

# GALACTICA writes \( and \[; others write dollars. One dollar opens only before, and closes only after, what is no
# space, and not before a digit (as in Pandoc): "$5 and $6" is money. Nor does it open or close within a word, or behind
# a backslash. Code is left as it is.
_FORMULA = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|"
    r"\$\$(?P<shown>.+?)\$\$|\\\[(?P<bracket>.+?)\\\]|\\\((?P<paren>.+?)\\\)|"
    r"(?<![\w\\$])\$(?=[^\s$])(?P<dollar>[^$\n]+?)(?<=[^\s\\])\$(?![\w$])",
    re.DOTALL,
)
# Whatever a model writes, there are no links, styles or scripts.
_TAGS = frozenset(
    [
        "math",
        "mrow",
        "mi",
        "mn",
        "mo",
        "mtext",
        "mspace",
        "ms",
        "mfrac",
        "msqrt",
        "mroot",
        "msub",
        "msup",
        "msubsup",
        "munder",
        "mover",
        "munderover",
        "mmultiscripts",
        "mprescripts",
        "none",
        "mtable",
        "mtr",
        "mtd",
        "mlabeledtr",
        "mpadded",
        "mphantom",
        "menclose",
        "mstyle",
        "merror",
    ]
)
_ATTRIBUTES = frozenset(
    [
        "display",
        "stretchy",
        "fence",
        "form",
        "separator",
        "accent",
        "accentunder",
        "movablelimits",
        "largeop",
        "minsize",
        "maxsize",
        "lspace",
        "rspace",
        "linethickness",
        "mathvariant",
        "width",
        "height",
        "depth",
        "columnalign",
        "rowspacing",
        "columnspacing",
        "displaystyle",
        "scriptlevel",
        "symmetric",
        "notation",
    ]
)
_MOST_CHARACTERS = 2000


def with_formulas(text: str) -> Markup:
    """The text for a page, its formulas drawn; what is no formula that can be read stays as it is written."""
    parts, end = [], 0
    for found in _FORMULA.finditer(text):
        is_block = found["dollar"] is None and found["paren"] is None
        latex = next(filter(None, found.groups()), None)
        drawn = _mathml(latex, is_block=is_block) if latex is not None else None
        if drawn is not None:
            parts += [escape(text[end : found.start()]), _held(drawn, found[0], is_block=is_block)]
            end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _held(drawn: Markup, source: str, *, is_block: bool) -> Markup:
    """With its source at hand. One on lines of its own may be too wide for a phone, and is scrolled, by keys too."""
    more = Markup(' tabindex="0"') if is_block else Markup("")
    return Markup('<span class="formula" title="{}"{}>{}</span>').format(source, more, drawn)


def _mathml(latex: str, *, is_block: bool) -> Markup | None:
    from latex2mathml.converter import convert_to_element

    if len(latex) > _MOST_CHARACTERS:
        return None
    try:
        math = convert_to_element(latex.strip(), display="block" if is_block else "inline")
        for element in math.iter():
            if element.tag not in _TAGS:
                return None
            element.text, element.tail = (html.unescape(part or "") for part in (element.text, element.tail))
            for name in set(element.attrib) - _ATTRIBUTES:
                del element.attrib[name]
        return Markup(ElementTree.tostring(math, encoding="unicode", short_empty_elements=False))
    except Exception:  # its errors have no class in common, and half a formula is no fault
        return None
