"""Errors that the user can fix. Each message is one line that says what is wrong, where, and how to fix it."""


class ElectrainError(Exception):
    """Wrong input from the user. The command line prints only the message and exits with code 2."""


class ConfigurationError(ElectrainError):
    """A value in a configuration file or an option is invalid, or contradicts another one."""


class DataError(ElectrainError):
    """A corpus, shard or file of examples cannot be used."""


class TokenizerError(ElectrainError):
    """A tokenizer is missing, damaged, or not the one that the data was prepared with."""


class RunDirectoryError(ElectrainError):
    """An output folder is not empty, not finished, or not what the next stage needs."""


class CheckpointError(ElectrainError):
    """A checkpoint or a model folder is damaged, or does not fit the configuration."""


class HubError(ElectrainError):
    """A repository of the Hugging Face hub cannot be written."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message; empty if it has none."""
    return next(iter(str(error).strip().splitlines()), "")
