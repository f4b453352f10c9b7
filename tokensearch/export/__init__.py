"""A model under its policy as a file for other runtimes, compared with it before it is kept."""

from tokensearch.export.check import ExportCheck, Format
from tokensearch.export.exported import check_exported, prepare_backend
from tokensearch.export.file import check_target, export

__all__ = [
    "ExportCheck",
    "Format",
    "check_exported",
    "check_target",
    "export",
    "prepare_backend",
]
