"""Where records come from: files of many kinds, folders of them, data sets of the Hugging Face Hub.

A reader of another kind of file is a module here, and a line in ``files.READERS``.
"""
