"""A chat template whose date is a constant: the same text on every day, in training and in every other program."""

import json
from datetime import date

from galpaca.errors import InputError

# What Llama 3's template falls back to.
TEMPLATE_DATE = "2024-07-26"

_FIRST_LINE = "{#- galpaca: the date is pinned #}\n"
_LAST_LINE = "{#- galpaca: up to here #}\n"
# Names by which a template asks for a date.
_ASKS = ("strftime_now", "date_string")

# Not of ``calendar``, which speaks the language of the machine.
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def parsed_date(text: str, where: str = "data.template_date") -> date:
    """The date that a text such as ``2024-07-26`` names.

    Raises:
        InputError: it names none.
    """
    try:
        found = date.fromisoformat(text)
        if found.isoformat() != text:
            raise ValueError(text)
    except (TypeError, ValueError):
        raise InputError(f"must be a date, got {text!r}", where=where, fix=f"e.g. {where}={TEMPLATE_DATE}") from None
    return found


def pinned(template: str, day: date) -> str:
    """The template with a date that never changes; one that asks for none is left as it is.

    In front of it go a macro in the place of the function ``strftime_now``, and ``date_string``, which Llama 3's
    templates take before today's. A date that was pinned before is replaced.
    """
    template = _without_pin(template)
    if not any(name in template for name in _ASKS):
        return template
    # Every line ends in a block or a comment, behind which the library drops one newline: nothing is added to a text.
    lines = [
        _FIRST_LINE,
        "{%- macro strftime_now(format) %}\n",
        "{%- set found = namespace(text=format) %}\n",
        f"{{%- for directive, value in {json.dumps(_directives(day))} %}}\n",
        "{%- set found.text = found.text.replace(directive, value) %}\n",
        "{%- endfor %}\n",
        "{{- found.text -}}\n",
        "{%- endmacro %}\n",
        f"{{%- set date_string = {json.dumps(_spelled(day))} %}}\n",
        _LAST_LINE,
    ]
    return "".join([*lines, template])


def _without_pin(template: str) -> str:
    if not template.startswith(_FIRST_LINE):
        return template
    return template.partition(_LAST_LINE)[2]


def _spelled(day: date) -> str:
    """As Llama 3's templates spell it: 26 Jul 2024."""
    return f"{day.day:02} {_MONTHS[day.month - 1][:3]} {day.year}"


def _directives(day: date) -> list[tuple[str, str]]:
    """What ``strftime`` writes for each directive in English, at midnight, in no time zone."""
    weekday, month = _DAYS[day.weekday()], _MONTHS[day.month - 1]
    return [
        *(("%A", weekday), ("%a", weekday[:3]), ("%B", month), ("%b", month[:3]), ("%h", month[:3])),
        *(("%Y", f"{day.year:04}"), ("%y", f"{day.year % 100:02}"), ("%m", f"{day.month:02}"), ("%-m", str(day.month))),
        *(
            ("%d", f"{day.day:02}"),
            ("%-d", str(day.day)),
            ("%e", f"{day.day:2}"),
            ("%j", f"{day.timetuple().tm_yday:03}"),
        ),
        *(("%F", day.isoformat()), ("%D", f"{day.month:02}/{day.day:02}/{day.year % 100:02}")),
        *(("%u", str(day.isoweekday())), ("%w", str(day.isoweekday() % 7))),
        *(("%H", "00"), ("%-H", "0"), ("%I", "12"), ("%-I", "12"), ("%M", "00"), ("%S", "00"), ("%p", "AM")),
        *(("%T", "00:00:00"), ("%R", "00:00"), ("%f", "000000"), ("%Z", ""), ("%z", ""), ("%%", "%")),
    ]
