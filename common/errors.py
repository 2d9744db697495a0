"""The error tree. Everything raised for people descends from MarginstreamError and carries a process exit code."""


class MarginstreamError(Exception):
    """Base of all errors that this project raises on purpose."""

    exit_code = 1


class ConfigError(MarginstreamError, ValueError):
    """An option, a configuration file or a combination of them is wrong. The message names it and the remedy."""

    exit_code = 2


class DataError(MarginstreamError):
    """Data are missing or unreadable. The message names the folder or file."""

    exit_code = 2


class EndpointError(MarginstreamError):
    """An endpoint cannot be bound or connected as asked."""

    exit_code = 2


class NotWritten(MarginstreamError):
    """What a run ends with could not be written: the disk is full or the like. The message names files and remedy."""

    exit_code = 2


class ProtocolError(MarginstreamError):
    """Bytes from the network do not form a valid message, or a valid message came at the wrong time."""


class Rejected(MarginstreamError):
    """The trainer refused this scorer because `field` differs between the two."""

    exit_code = 3

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TrainingDiverged(MarginstreamError, ArithmeticError):
    """Losses or scores are no longer finite: nothing can be selected and nothing learned."""

    exit_code = 5


class PeerTimeout(MarginstreamError, TimeoutError):
    """The other side was silent past a deadline. The message says who, for how long, and what would end it."""

    exit_code = 4


class NoScorer(MarginstreamError):
    """A run that requires scorers had none for too long. The message says for how long, and how to go on."""

    exit_code = 6


class RankLost(MarginstreamError):
    """Another trainer rank has ended, or is silent: no further step can be made together. Its own log says why."""

    exit_code = 7


def is_final(error: BaseException | None) -> bool:
    """Whether a trainer that ends by this has ended for good: done, stopped by a person, or by what would come again.

    After anything else, such as a lost rank, a device that failed or a mistake in somebody's code, another one may be
    started in its place and go on from its checkpoint.
    """
    if isinstance(error, MarginstreamError):
        return error.exit_code in (ConfigError.exit_code, TrainingDiverged.exit_code, NoScorer.exit_code)
    return not isinstance(error, Exception)
