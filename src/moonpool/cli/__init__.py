"""WHAT AN OPERATOR TYPES: one file for each noun, each command a few lines over the admin API.

Words: a *desk* is where a command does its work: the running server, through the socket in its home, or the store
itself when no server runs. Both run the same functions of web/admin.py, so a command cannot tell which it was.
What a program reads goes to standard output (with `--json`: one JSON document), what a person is told about it to
standard error. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. No rule lives here.
"""
