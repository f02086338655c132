"""The one exception whose message is meant for the user at the terminal."""


class UserError(Exception):
    """An error that the user can fix: in a config field, a path, a file, or a full disk.

    The message is one line that names the cause, its value and the remedy; each further argument is a
    line of its own. The entry points print it without a traceback and exit with a non-zero status; a
    traceback is for our own bugs only.
    """

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.args))
