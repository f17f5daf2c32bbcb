"""The forms of a page, sent as a browser without JavaScript sends them."""

from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import urljoin

from django.test import Client


class Button(NamedTuple):
    """A button: its attributes, and the form that it sends: `action`, `method`, and the fields."""

    attributes: dict[str, str]
    label: str
    form: dict[str, str]
    fields: list[tuple[str, str]]


class _Page(HTMLParser):
    """Collects forms, fields and buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.fields: list[tuple[dict[str, str], dict[str, str]]] = []
        self.buttons: list[tuple[dict[str, str], dict[str, str]]] = []
        self.labels: list[str] = []
        self._form: dict[str, str] = {}
        self._select: tuple[dict[str, str], dict[str, str]] | None = None
        self._in_button = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        owner = {"id": attributes["form"]} if "form" in attributes else self._form
        if tag == "form":
            self._form = attributes
            self.forms.append(attributes)
        elif tag in ("input", "textarea"):
            self.fields.append((owner, attributes))
        elif tag == "select":
            self._select = (owner, attributes | {"value": ""})
            self.fields.append(self._select)
        elif tag == "option" and self._select and ("selected" in attributes or not self._select[1]["value"]):
            self._select[1]["value"] = attributes.get("value", "")
        elif tag == "button":
            self._in_button = True
            self.buttons.append((owner, attributes))
            self.labels.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = {}
        elif tag == "select":
            self._select = None
        elif tag == "button":
            self._in_button = False

    def handle_data(self, data: str) -> None:
        if self._in_button:
            self.labels[-1] += data

    def _of(self, owner: dict[str, str]) -> dict[str, str]:
        if owner.keys() == {"id"}:
            return next((form for form in self.forms if form.get("id") == owner["id"]), owner)
        return owner

    def found(self) -> list[Button]:
        """Return the buttons. Boxes that are not ticked are not sent."""
        buttons = []
        for (owner, attributes), label in zip(self.buttons, self.labels, strict=True):
            form = self._of(owner)
            sent = [
                (field["name"], field.get("value", ""))
                for owner, field in self.fields
                if self._of(owner) is form and field.get("name")
                if field.get("type") not in ("checkbox", "radio") or "checked" in field
            ]
            buttons.append(Button(attributes, " ".join(label.split()), form, sent))
        return buttons


def buttons(html: str) -> list[Button]:
    """Return the buttons of a page."""
    page = _Page()
    page.feed(html)
    return page.found()


def press(browser: Client, response: Any, what: str, follow: bool = True, **filled: Any) -> Any:
    """Press the button of a page with this id or label, and return the response.

    `filled`: what the user typed, or ticked (a list).
    """
    html, address = response.content.decode(), response.request["PATH_INFO"]
    found = [one for one in buttons(html) if what in (one.attributes.get("id"), one.label)]
    assert found, f"{what}: only {[one.attributes.get('id') or one.label for one in buttons(html)]}"
    button = found[0]
    data: dict[str, list[str]] = {}
    for name, value in button.fields:
        data.setdefault(name, []).append(value)
    if button.attributes.get("name"):
        data[button.attributes["name"]] = [button.attributes.get("value", "")]
    data |= {name: value if isinstance(value, list) else [value] for name, value in filled.items()}
    action = urljoin(address, button.attributes.get("formaction") or button.form.get("action") or address)
    is_post = button.attributes.get("formmethod", button.form.get("method", "get")).lower() == "post"
    return browser.post(action, data, follow=follow) if is_post else browser.get(action, data, follow=follow)
