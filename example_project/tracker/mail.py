"""Mails as files."""

from pathlib import Path
from uuid import uuid4

from django.core.mail.backends.filebased import EmailBackend


class OneFilePerMail(EmailBackend):
    """Writes each mail to a file of its own. Two mails may share one with Django's backend."""

    _fname: str | None

    def _get_filename(self) -> str:
        if self._fname is None:
            self._fname = str(Path(self.file_path) / f"{uuid4().hex}.eml")
        return self._fname
