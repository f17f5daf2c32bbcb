"""The translations: complete, compiled, and with the placeholders of the English texts."""

import gettext
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site import ROOT

LOCALE = ROOT / "snappea" / "locale"
LANGUAGES = ["de", "es", "fr", "nl", "pt_BR"]
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd%]|\{\w*\}")

pytestmark = pytest.mark.needs("xgettext")


def catalog(language: str) -> dict[str | tuple[str, int], str]:
    """Return the compiled translations."""
    with (LOCALE / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        found: dict[str | tuple[str, int], str] = vars(gettext.GNUTranslations(file))["_catalog"]
    return {key: text for key, text in found.items() if key}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collect the texts of the library, and return the directory of a copy of it."""
    copy = tmp_path_factory.mktemp("locale") / "snappea"
    shutil.copytree(ROOT / "snappea", copy, ignore=shutil.ignore_patterns("docs", "__pycache__"))
    # not python -m django, which would take our `queue` for Python's
    admin = Path(sys.executable).parent / "django-admin"
    command = [str(admin), "makemessages", "--no-location", "--no-obsolete", "-v0"]
    subprocess.run([*command, *(f"-l{language}" for language in LANGUAGES)], cwd=copy, check=True)
    return copy / "locale"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_text_is_translated(template: Path, language: str) -> None:
    """After a text was changed: `cd snappea && django-admin makemessages -a --no-location --no-obsolete`."""
    file = template / language / "LC_MESSAGES" / "django.po"
    command = (
        ["msgattrib", "--no-wrap", "--untranslated", str(file)],
        ["msgattrib", "--only-fuzzy", str(file)],
    )
    for each in command:
        assert subprocess.check_output(each, text=True) == ""
    mo = subprocess.check_output(["msgfmt", "--check", "-o", "-", str(file)])
    file.with_suffix(".fresh").write_bytes(mo)
    with file.with_suffix(".fresh").open("rb") as fresh:
        expected = vars(gettext.GNUTranslations(fresh))["_catalog"]
    assert {key: text for key, text in expected.items() if key} == catalog(language), "run compilemessages"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_placeholders_are_those_of_the_english_text(language: str) -> None:
    found = catalog(language)
    assert len(found) > 100
    for key, text in found.items():
        english = key if isinstance(key, str) else key[0]
        lost = {*PLACEHOLDER.findall(english)} - {*PLACEHOLDER.findall(text)}
        # the singular may name the number in words
        assert not lost or (isinstance(key, tuple) and key[1] == 0), (english, text)
