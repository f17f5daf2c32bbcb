"""The admin and the dashboard in a real browser: Chromium. Screenshots lie in tests/screenshots/."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.site import Site, wait_until
from tests.web import PASSWORD, served

SCREENSHOTS = Path(__file__).parent / "screenshots"
pytestmark = [pytest.mark.needs("chromium"), pytest.mark.needs("chromedriver")]


class Browser:
    """Chromium, on the site that this process serves."""

    def __init__(self, address: str, driver: webdriver.Chrome) -> None:
        self.address = address
        self.driver = driver

    def open(self, path: str) -> None:
        self.driver.get(f"{self.address}{path}")

    def find(self, selector: str) -> Any:
        """Return the element, once it is there."""
        found = wait_until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), selector)
        return found[0]

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self) -> str:
        """Return the text of the page, without waiting for anything."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def wait_for_text(self, text: str) -> None:
        wait_until(lambda: text in self.text(), f"{text!r} on the page {self.driver.current_url}")

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, what: Callable[[Any], bool]) -> Any:
        """Walk through the page with the tabulator until the focus is on something."""
        for _ in range(200):
            self.press(Keys.TAB)
            if what(element := self.driver.switch_to.active_element):
                return element
        raise AssertionError("no tabulator leads there")

    def log_in(self, name: str = "boss") -> None:
        self.open("/admin/login/?next=/admin/snappea/dashboard/")
        self.find("#id_username").send_keys(name)
        self.find("#id_password").send_keys(PASSWORD, Keys.ENTER)
        self.find("#snappea-live")

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(exist_ok=True)
        height = self.driver.execute_script("return document.documentElement.scrollHeight")
        width = self.driver.execute_script("return window.innerWidth")
        self.driver.set_window_size(width, min(max(height, 400), 4000))
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def complaints(self) -> list[str]:
        """Return what the browser had to complain of: a breach of the policy, a script that failed."""
        driver: Any = self.driver
        said = [entry["message"] for entry in driver.get_log("browser")]
        return [message for message in said if "favicon.ico" not in message]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    with webdriver.Chrome(options, service) as driver:
        yield driver


@pytest.fixture
def browser(site: Site, driver: webdriver.Chrome) -> Iterator[Browser]:
    with served() as address:
        driver.set_window_size(1280, 900)
        browser = Browser(address, driver)
        yield browser
        complaints = browser.complaints()
        driver.delete_all_cookies()
        driver.get("about:blank")  # so that it asks for nothing more
    assert not complaints
