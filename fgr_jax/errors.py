"""The one exception whose message is meant for the user at the terminal."""


class UserError(Exception):
    """Something the user can put right: a config field, a path, a file, a full disk.

    The message is one line that names the thing, its value and the way out. The entry points print
    it without a traceback and exit with a non-zero status; a traceback is for our own bugs only.
    """
