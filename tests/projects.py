"""Projects that use Snappea: each is a directory, with its files and its processes."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.site import DEADLINE, ROOT, Process, wait_until
from tests.warm import is_read_at_start


class Running:
    """A process in a project; its output lies in a file."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.popen = popen
        self.log = log

    def output(self) -> str:
        """Return what it wrote so far."""
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str) -> None:
        """Wait until a text is in the output. Raises AssertionError if the process ends before."""
        wait_until(lambda: text in self.output() or self.popen.poll() is not None, f"{text}: {self.output()}")
        assert text in self.output(), self.output()


class Project:
    """A Django project in a directory, with Snappea installed as it is for its users."""

    def __init__(self, directory: Path, files: Mapping[str, str], settings: str = "settings") -> None:
        self.directory = directory
        self.settings = settings
        self.variables: dict[str, str] = {}
        #: What its processes run under, as in ["setpriv", ...].
        self.wrapper: list[str] = []
        for name, text in files.items():
            self.write(name, text)
        # what an installation tells pytest, whatever is installed here
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
        lines = ["[pytest11]", *(f"{name} = {module}" for name, module in scripts.items())]
        self.write("installed/snappea_here-0.dist-info/METADATA", "Name: snappea_here\nVersion: 0\n")
        self.write("installed/snappea_here-0.dist-info/entry_points.txt", "\n".join(lines))

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def append(self, name: str, text: str) -> None:
        self.write(name, (self.directory / name).read_text() + text)

    def environment(self) -> dict[str, str]:
        """Return the environment of its processes: nothing in it is of our own tests."""
        paths = os.pathsep.join(map(str, (self.directory, ROOT, self.directory / "installed")))
        ours = ("PYTEST", "SNAPPEA", "DJANGO")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        programs = [str(Path(sys.executable).parent), kept["PATH"]]
        return {
            **kept,
            "DJANGO_SETTINGS_MODULE": self.settings,
            "PYTHONPATH": paths,
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join(programs),
            **self.variables,
        }

    def run(self, *arguments: str) -> str:
        """Run a module of Python there, and return what it wrote. Raises AssertionError if it fails."""
        exit_code, output = self.try_to_run(*arguments)
        assert exit_code == 0, output
        return output

    def try_to_run(self, *arguments: str) -> tuple[int, str]:
        warm = self._warm()
        return self._done(
            [str(warm / "python") if warm else sys.executable, "-W", "ignore", "-m", *arguments]
        )

    def shell(self, commands: str) -> str:
        """Do in a shell what stands in the manual; it ends where something fails."""
        warm = self._warm()
        commands = f"PATH={warm}:$PATH\n{commands}" if warm else commands
        exit_code, output = self._done(["bash", "-euo", "pipefail", "-c", commands])
        assert exit_code == 0, f"{commands}\n{output}"
        return output

    def _warm(self) -> Path | None:
        """Return where the `python` is that starts sooner, if it does the same here."""
        at_start = (self.directory / "sitecustomize.py").exists() or any(
            map(is_read_at_start, self.variables)
        )
        executes = self.wrapper or at_start
        return Process.warm.programs if Process.warm and not executes else None

    def _done(self, command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            [*self.wrapper, *command],
            env=self.environment(),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=3 * DEADLINE,
            text=True,
        )
        return done.returncode, done.stdout

    @contextmanager
    def running(self, command: str, ready: str = "") -> Iterator[Running]:
        """Keep a command running until the block ends; it starts once `ready` is in the output."""
        log = self.directory / f"{len(list(self.directory.glob('*.log')))}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [*self.wrapper, "bash", "-c", f"exec {command}"],
                env=self.environment(),
                cwd=self.directory,
                stdout=output,
                stderr=output,
            )
        running = Running(popen, log)
        try:
            running.wait_for_output(ready)
            yield running
            popen.terminate()
            popen.wait(DEADLINE)
        finally:
            popen.kill()
            popen.wait()
