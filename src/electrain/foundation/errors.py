"""Mistakes that are the user's to mend: each message is one line saying what is wrong, where, and how to mend it."""


class ElectrainError(Exception):
    """A mistake in what the user gave us. The command line prints the message alone and exits with code 2."""


class ConfigurationError(ElectrainError):
    """A configuration file, or a flag, says something that cannot be."""


class DataError(ElectrainError):
    """A corpus, a shard or an evaluation file cannot be used as it is."""


class TokenizerError(ElectrainError):
    """A tokenizer is missing, broken, or not the one that the data was made with."""


class RunDirectoryError(ElectrainError):
    """An output folder is not empty, not finished, or not what the next stage needs."""


class CheckpointError(ElectrainError):
    """A checkpoint or a model folder is damaged or does not fit the configuration."""
