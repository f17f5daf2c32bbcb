"""Takes a picture of each page of the console: `python -m tests.admin.gallery DIRECTORY [THEME ...]`.

In Django's admin, Unfold and Jazzmin ("django", "unfold", "jazzmin"): three widths, light and dark, English,
German and Arabic, with and without JavaScript. Themes on the command line: only these.
"""

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from selenium import webdriver

from tests.admin.chromium import Browser, chromium
from tests.site import DEADLINE, ROOT, Process, wait_until

THEMES = {"django": "", "unfold": "unfold", "jazzmin": "jazzmin"}
#: The console's pages, by the picture's name.
PAGES = {
    "overview": "dashboard/",
    "failures": "dashboard/failures/",
    "workers": "dashboard/workers/",
    "tasks": "task/",
    "failed": "task/?q=state:failed",
    "search": "task/?q=ship+state:failed+args.parcels:2",
    "task": "task/{failed}/change/?q=state:failed",
    "running": "task/{running}/change/",
    "type": "dashboard/type/?name=tests.admin.shop.tasks.ship",
    "enqueue": "task/enqueue/?name=tests.admin.shop.tasks.charge&like={failed}",
    "batches": "task/batch/",
    "batch": "task/batch/1/",
    "members": "task/?q=batch:1",
    "schedules": "schedule/",
    "schedule": "schedule/1/change/",
    "schedule-add": "schedule/add/",
    "index": "../",
}


class Look(NamedTuple):
    """How a page is looked at. `language`: the code of a language; `scripts`: whether scripts run."""

    width: int = 1400
    scheme: str = "light"
    language: str = "en"
    scripts: bool = True

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}-{self.language}{'' if self.scripts else '-noscript'}"


LOOKS = {
    "django": [
        *(Look(width, scheme) for width in (1400, 768, 390) for scheme in ("light", "dark")),
        *(Look(width, language=language) for width in (1400, 390) for language in ("de", "ar")),
        Look(scripts=False),
    ],
    "unfold": [Look(), Look(scheme="dark"), Look(390)],
    "jazzmin": [Look(), Look(scheme="dark"), Look(390)],
}


class Shop(NamedTuple):
    """A running shop: its address, and the environment of its processes."""

    address: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> str:
        """Run a module of Python, and return what it wrote."""
        return subprocess.check_output([_python(), "-m", *arguments], env=self.environment, text=True)


@contextmanager
def shop(directory: Path, theme: str = "django") -> Iterator[Shop]:
    """Serve the shop, with a Foreman and something of each kind in its queue."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.admin.shop.settings",
        "PYTHONPATH": str(ROOT),
        "SHOP_DIR": str(directory),
    }
    if THEMES[theme]:
        environment["SHOP_THEME"] = THEMES[theme]
    here = Shop(f"http://{address}", environment)
    for database in ("default", "snappea"):
        here.run("django", "migrate", "-v0", f"--database={database}")
    with (
        (directory / "processes.log").open("wb") as log,
        _running(here, log, "runsnappea"),
        _running(here, log, "runserver", "--noreload", address),
    ):
        here.run("tests.admin.shop.fill")
        wait_until(lambda: _answers(here.address))
        yield here


def _python() -> str:
    """Return the Python that starts soonest."""
    return str(Process.warm.programs / "python") if Process.warm else sys.executable


def _answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{address}/admin/login/", timeout=DEADLINE):
        return True
    return False


@contextmanager
def _running(here: Shop, log: object, *command: str) -> Iterator[None]:
    process = subprocess.Popen(
        [_python(), "-m", "django", *command],
        env=here.environment,
        stdout=log,  # type: ignore[call-overload]
        stderr=log,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


def pages(here: Shop) -> dict[str, str]:
    """Return the addresses of all pages, once tasks have failed and run."""
    code = (
        "from snappea.models import Task; "
        "failed = Task.objects.filter(status='failed').earliest('pk').pk; "
        "running = Task.objects.filter(status='running').earliest('pk').pk; print(failed, running)"
    )

    def found() -> list[str]:
        with suppress(subprocess.CalledProcessError):
            return here.run("django", "shell", "-v0", "-c", code).split()
        return []

    failed, running = wait_until(found)
    return {
        name: f"/admin/snappea/{path.format(failed=failed, running=running)}" for name, path in PAGES.items()
    }


def put_on(browser: Browser, look: Look) -> None:
    """Look at pages in a way."""
    browser.look_like(look.width, look.scheme)
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not look.scripts})
    browser.driver.add_cookie({"name": "django_language", "value": look.language, "path": "/"})


def take(driver: webdriver.Chrome, theme: str, out: Path) -> None:
    """Take the pictures of a theme."""
    with tempfile.TemporaryDirectory() as directory, shop(Path(directory), theme) as here:
        browser = Browser(here.address, driver)
        browser.log_in()
        addresses = pages(here)
        for look in LOOKS[theme]:
            put_on(browser, look)
            for name, address in addresses.items():
                browser.open(address)
                browser.shoot(f"{theme}-{name}-{look}", out)
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        driver.delete_all_cookies()


def main() -> None:
    """Take all pictures."""
    out, *themes = sys.argv[1:]
    with chromium() as driver:
        for theme in themes or THEMES:
            take(driver, theme, Path(out))


if __name__ == "__main__":
    main()
