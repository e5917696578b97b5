"""Pretrain your own ELECTRA on text in your own language or field, and use it."""

__version__ = "0.1.0"
