"""Forms that a row may have: columns for each field, or a list of messages.

Another form is a module here, and a line in ``reading.FORMS``.
"""
