"""What the chat's page is given of a text."""

import pytest

from galpaca.app.chat.talk import page_text


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("<work>1 + 1 < 3</work>", "&lt;work>1 + 1 < 3&lt;/work>"),
        ("Use `<div>`, not <div>.", "Use `<div>`, not &lt;div>."),
        ("```cpp\n#include <iostream>\n```\nand <b>", "```\n#include <iostream>\n```\nand &lt;b>"),
        ("```python\nprint('<still being written>", "```\nprint('<still being written>"),
        ("![x](http://elsewhere/p.png)", "&#33;[x](http://elsewhere/p.png)"),
        ("Really! [1]", "Really! [1]"),
    ],
)
def test_tags_are_shown_code_is_left_alone_and_no_image_is_fetched(text: str, given: str) -> None:
    """Code was garbled, and an image of the model's choice was fetched from another host."""
    assert page_text(text) == given
