"""Takes the manual's pictures of the dashboard: `python -m tests.docs.screenshots`. Needs Chromium.

They show the demo after its events, with some mails that failed, some that are due later, and two hours of
history, which the demo is too short for.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.docs.manual import PAGES
from tests.site import ROOT, wait_until

IMAGES = PAGES / "images"
WIDTH, HEIGHT = 1200, 1180
#: Runs in the demo's project, beside it.
MORE = """
import math, random
from example_project.tracker.tasks import do_nothing, mail_about_issue
from tests.minutes import write_minute

chance, name = random.Random(19), "example_project.tracker.tasks."
for back in range(119, 1, -1):
    done = int(4500 + 2500 * math.sin(back / 19) + 900 * chance.random())
    failed = 700 if 40 < back < 46 else 0
    digests = {
        "done": done,
        "wait_sum": done * 0.004,
        "run_sum": done * 0.003,
        "run_times": {-14: done // 2, -12: done // 3, -8: done // 6},
        "wait_times": {-15: done // 2, -13: done // 3, -9 - int(3 * chance.random() ** 4): done // 6},
    }
    mails = {"done": 20, "failed": failed, "wait_sum": 0.1, "run_sum": 0.4}
    numbers = {name + "digest_event": digests, name + "mail_about_issue": mails}
    write_minute(back, numbers, int(abs(chance.gauss(5, 4))) + failed, starts=int(back == 70))
for issue in (9001, 9002, 9003):
    mail_about_issue.delay(issue)
for minutes in range(1, 13):
    do_nothing.apply_async(countdown=600 * minutes)
"""


def main() -> None:
    """Run the demo, and take a picture in each color scheme."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "EXAMPLE_DATA_DIR": directory, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "manage.py"]
        log = Path(directory) / "demo.log"
        with log.open("wb") as output:
            demo = subprocess.Popen([*command, "demo"], cwd=ROOT, env=environment, stdout=output)
        try:
            told = wait_until(lambda: re.search(r"at (\S+): user (\w+), password (\S+)", log.read_text()))
            subprocess.run([*command, "shell", "-c", MORE], cwd=ROOT, env=environment, check=True)
            take(*told.groups())
        finally:
            demo.terminate()
            demo.wait()


def take(address: str, name: str, password: str) -> None:
    """Log in, and take the pictures."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    with webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver")) as driver:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(address)
        driver.execute_script("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
        driver.find_element(By.ID, "id_username").send_keys(name)
        driver.find_element(By.ID, "id_password").send_keys(password, Keys.ENTER)
        wait_until(lambda: "DoesNotExist" in driver.page_source)
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            time.sleep(1)  # colors change slowly
            driver.save_screenshot(str(IMAGES / f"dashboard-{scheme}.png"))


if __name__ == "__main__":
    main()
