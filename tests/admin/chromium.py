"""Chromium, for tests that look at pages as people do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.site import PASSWORD, wait_until

SCREENSHOTS = Path(__file__).parent.parent / "screenshots"


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver")) as driver:
        yield driver


class Browser:
    """Chromium, on the site that this process serves."""

    def __init__(self, address: str, driver: webdriver.Chrome) -> None:
        self.address = address
        self.driver = driver

    def open(self, path: str) -> None:
        self.driver.get(f"{self.address}{path}")

    def find(self, selector: str) -> Any:
        """Wait for an element, and return it."""
        found = wait_until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), selector)
        return found[0]

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text_of(self, selector: str) -> str:
        """Return the text of an element; empty if the page was just updated."""
        try:
            return str(self.find(selector).text)
        except WebDriverException:
            return ""

    def click(self, selector: str) -> None:
        """Click on an element, even while the page is updated."""

        def is_clicked() -> bool:
            try:
                self.find(selector).click()
            except WebDriverException:
                return False
            return True

        wait_until(is_clicked, selector)

    def text(self) -> str:
        """Return the text of the page, without waiting for anything."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def wait_for_text(self, text: str) -> None:
        wait_until(lambda: text in self.text(), f"{text!r} on the page {self.driver.current_url}")

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, what: Callable[[Any], bool]) -> Any:
        """Press Tab until an element has the focus."""
        for _ in range(200):
            self.press(Keys.TAB)
            if what(element := self.driver.switch_to.active_element):
                return element
        raise AssertionError("no tabulator leads there")

    def log_in(self, name: str = "boss") -> None:
        self.open("/admin/login/?next=/admin/snappea/dashboard/")
        self.find("input[name=username]").send_keys(name)
        self.find("input[name=password]").send_keys(PASSWORD, Keys.ENTER)
        self.find("#content-main, .sp, #snappea-live")

    def look_like(self, width: int = 1280, scheme: str = "light") -> None:
        """Emulate a window or a phone of this size, in a light or dark theme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self._resize(width, 900)

    def _resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def shoot(self, name: str, directory: Path = SCREENSHOTS) -> None:
        """Save a picture of the whole page."""
        directory.mkdir(exist_ok=True)
        width = self.driver.execute_script("return window.innerWidth")
        height = self.driver.execute_script("return document.documentElement.scrollHeight")
        self._resize(width, min(height, 3000))
        self.driver.save_screenshot(str(directory / f"{name}.png"))
        self._resize(width, 900)

    def complaints(self) -> list[str]:
        """Return the browser's errors: violations of the content security policy, failed scripts."""
        driver: Any = self.driver
        said = [entry["message"] for entry in driver.get_log("browser")]
        return [message for message in said if "favicon.ico" not in message]
