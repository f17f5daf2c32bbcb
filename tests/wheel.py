"""Build the distributions, look into them, and follow the manual's set-up with the wheel alone.

`python -m tests.wheel`; needs build and twine.
"""

import email
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from snappea import __version__
from tests.docs.blocks import commands, of
from tests.projects import Project
from tests.site import ROOT

#: What a source distribution holds beside the library.
AT_THE_TOP = {".gitignore", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
FOLDERS = {".readme", "snappea"}
NIGHTLY = """

@task(cron="0 3 * * *")
def clean_up() -> None: ...
"""


class Installed(Project):
    """A project in an environment where Snappea is installed, far from the repository."""

    def environment(self) -> dict[str, str]:
        """Return the environment of its processes: nothing in it leads to the repository."""
        environment = super().environment()
        del environment["PYTHONPATH"]
        return {**environment, "PATH": f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def build(directory: Path) -> tuple[Path, Path]:
    """Build both distributions, and have their metadata checked. Return the paths of sdist and wheel."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", directory, ROOT], check=True, stdout=2)
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", sdist, wheel], check=True)
    return sdist, wheel


def library() -> set[str]:
    """Return the files of the library, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "snappea"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.splitlines())


def look_into(sdist: Path, wheel: Path) -> None:
    """Check that all that is needed is in there, and nothing else. Raises AssertionError."""
    with zipfile.ZipFile(wheel) as opened:
        information = f"django_snappea-{__version__}.dist-info"
        names = set(opened.namelist())
        metadata = email.message_from_bytes(opened.read(f"{information}/METADATA"))
    found = {name for name in names if not name.startswith(information)}
    expected = {name for name in library() if not name.startswith("snappea/docs/")}
    assert found == expected, f"in the wheel or missing there: {sorted(found ^ expected)}"
    assert f"{information}/licenses/LICENSE" in names
    assert (metadata["Name"], metadata["Version"]) == ("django-snappea", __version__)
    with tarfile.open(sdist) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    top = {name for name in held if "/" not in name}
    assert top == AT_THE_TOP and {name.split("/")[0] for name in held - top} == FOLDERS, sorted(held)
    assert library() <= held


def set_up(wheel: Path, directory: Path) -> None:
    """Do what the manual says, from `pip install` to the result of a task. Raises AssertionError."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    project = Installed(directory, {}, "proj.settings")
    install, settings, tasks, start, call = of("Installation")
    assert "/path/to/your/clone" in install
    pip, *rest = install.replace("/path/to/your/clone", str(wheel)).splitlines()
    project.shell("\n".join([pip, "django-admin startproject proj .", *rest]))
    home = project.shell("cd / && python -c 'import snappea; print(snappea.__file__)'")
    assert home.startswith(str(directory)), home
    project.append("proj/settings.py", settings)
    add, get = of("AsyncResult")
    project.write("mail/tasks.py", f"{tasks}\n{add}")
    project.shell(f"python manage.py migrate\n{commands(start)}")
    with project.running("python manage.py runsnappea", "tasks ready") as foreman:
        project.shell(call)
        foreman.wait_for_output("A mail to user 42")
        assert project.shell(get).splitlines()[-1] == "3"
    assert foreman.popen.returncode == 0, foreman.output()
    add_extra(project)


def add_extra(project: Project) -> None:
    """Use something that needs an extra, and run the command that the error names. Raises AssertionError."""
    project.append("mail/tasks.py", NIGHTLY)
    told = project.shell("! python manage.py check 2>&1")
    cure = re.search(r"HINT: Run: (pip install .*)", told)
    assert cure, told
    project.shell(f"{cure[1]} && python manage.py check && pip check")


def main() -> None:
    """Do it all."""
    with tempfile.TemporaryDirectory() as directory:
        sdist, wheel = build(Path(directory) / "dist")
        look_into(sdist, wheel)
        set_up(wheel, Path(directory) / "site")
    print(f"{sdist.name} and {wheel.name} are whole, and the set-up works with them.")


if __name__ == "__main__":
    main()
