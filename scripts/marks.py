"""Where generated text goes in a page: between ``<!-- KIND: NAME -->`` and ``<!-- end -->``."""

import re
from collections.abc import Callable


def filled(text: str, kind: str, block: Callable[[str], str]) -> str:
    """A page with its generated text.

    Args:
        block: the text by the name in a mark.
    """
    return re.sub(
        rf"(<!-- {kind}: ([^>]+?) -->\n).*?(<!-- end -->)",
        lambda mark: f"{mark[1]}\n{block(mark[2])}\n\n{mark[3]}",
        text,
        flags=re.DOTALL,
    )
