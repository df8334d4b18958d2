"""The ways in which a run may end early, and their exit codes."""

from __future__ import annotations

import errno

USAGE_EXIT_CODE = 2
DIVERGED_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = 130


class UsageError(Exception):
    """A request that cannot be carried out; the message is one line naming the option and the remedy."""

    def __init__(self, option: str, problem: str, remedy: str) -> None:
        self.option = option
        super().__init__(f"{option}: {problem}; {remedy}")


class DivergedError(Exception):
    """A loss or a weight that is not finite; the message names the step."""

    def __init__(self, step: int, what: str, kept: str) -> None:
        self.step = step
        super().__init__(
            f"{what} is not finite at step {step}; training stopped, {kept}. "
            "Try a smaller --lr, a longer --warmup-epochs or --precision 32."
        )


def describe_os_error(error: OSError, out: str) -> str:
    """One line for an operating-system error met while a run was writing its results."""
    where = error.filename or out
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"--out: no space left on the device while writing {where}; free some space and continue with --resume, "
            f"or choose another --out (earlier checkpoints are intact)"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"--out: {where} is not writable; choose another --out or change its permissions"
    return f"--out: {error.strerror or error} ({where}); choose another --out or repair the file system"
