"""A web shop with bugs: each blunder is a call that raises a real exception."""

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any


class OutOfStock(Exception):
    """A customer wants more than there is."""


class PaymentDeclined(Exception):
    """The bank declined."""


class VoucherExpired(Exception):
    """The voucher is too old."""


def price_per_piece(basket: dict[str, Any]) -> float:
    return float(basket["total"] / basket["pieces"])


def reserve(quantity: Any) -> int:
    if int(quantity) > 10:
        raise OutOfStock(f"{quantity} wanted, 10 left")
    return int(quantity)


def pick_from_shelf(shelves: Any, row: int) -> str:
    return str(shelves[row]["label"])


def label_parcel(address: Any) -> bytes:
    return bytes(address.encode("ascii")[:40].ljust(40), "ascii")


def charge(card: dict[str, Any]) -> int:
    if card["limit"] < card["amount"]:
        raise PaymentDeclined(f"{card['amount']} is more than {card['limit']}")
    return int(card["amount"])


def load_picture(path: Any) -> str:
    return Path(path).read_text(encoding="ascii")


def write_invoice(template: str, order: dict[str, Any]) -> str:
    return template.format(**order)


def schedule_delivery(day: Any, delay: int = 0) -> date:
    return date.fromisoformat(day) + timedelta(days=delay)


def redeem(voucher: dict[str, Any]) -> int:
    if voucher["until"] < 2025:
        raise VoucherExpired(f"it was good until {voucher['until']}")
    return int(voucher["worth"])


def search(catalogue: list[str], pattern: Any) -> str:
    return next(entry for entry in catalogue if re.search(pattern, entry))


def receive_webhook(body: bytes) -> str:
    return str(json.loads(body.decode())["order"])


def convert(amount: Any, rate: Any) -> Decimal:
    return Decimal(amount) / Decimal(rate)


#: The most frequent first.
BLUNDERS: list[Callable[[], object]] = [
    partial(price_per_piece, {"total": 20, "pieces": 0}),
    partial(reserve, 12),
    partial(charge, {"limit": 100, "amount": 250}),
    partial(receive_webhook, b"<html>502 Bad Gateway</html>"),
    partial(schedule_delivery, "31.12.2025"),
    partial(load_picture, "/no/such/picture.svg"),
    partial(redeem, {"until": 2024, "worth": 5}),
    partial(label_parcel, "Käsgasse 7, Köln"),
    partial(pick_from_shelf, [], 3),
    partial(write_invoice, "{number} for {name}", {"number": 7}),
    partial(search, ["apple", "pear"], "plum"),
    partial(convert, "12,50", "1.1"),
    partial(price_per_piece, {"total": "20", "pieces": 2}),
    partial(reserve, "a dozen"),
    partial(charge, {"limit": 100}),
    partial(receive_webhook, b"\xff\xfe"),
    partial(schedule_delivery, None),
    partial(load_picture, "/"),
    partial(redeem, {"until": "2024"}),
    partial(label_parcel, None),
    partial(pick_from_shelf, {}, 3),
    partial(write_invoice, "{number", {"number": 7}),
    partial(search, ["apple", "pear"], "("),
    partial(convert, "12.50", 0),
    partial(price_per_piece, {}),
    partial(reserve, None),
    partial(charge, {"limit": "100", "amount": 250}),
    partial(receive_webhook, b'{"parcel": 12}'),
    partial(schedule_delivery, "2025-12-31", 10**9),
    partial(load_picture, None),
    partial(redeem, {"until": 2030, "worth": "five"}),
    partial(label_parcel, "Main Street 1"),
    partial(pick_from_shelf, None, 3),
    partial(write_invoice, "{}", {}),
    partial(search, ["apple", "pear"], None),
    partial(convert, "12.50", None),
]
