"""Mails as files, to be looked at."""

from pathlib import Path
from uuid import uuid4

from django.core.mail.backends.filebased import EmailBackend


class OneFilePerMail(EmailBackend):
    """Django's own names a file by the second and the backend's address, which two mails may share."""

    _fname: str | None

    def _get_filename(self) -> str:
        if self._fname is None:
            self._fname = str(Path(self.file_path) / f"{uuid4().hex}.eml")
        return self._fname
