"""A shop and a till with a customer whose every trace is known, to be looked for after an erasure."""

from __future__ import annotations

import csv
import hashlib
import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from features.data.ingest import IngestReport, ingest
from features.data.sources import FileSource
from qianmian.settings import Settings
from qianmian.workspace import Workspace

USER_ID = "Kq7vWm2Xz9Lp4Rt6Yb8N"
CARD = "card-5520918834"
VISITOR = "visitor-8c1f2e77d0"
EMAIL, PHONE, NAME = "mara.quillfeather@example.org", "+447700900861", "Mara Quillfeather"
NOW = datetime(2026, 6, 1)
CONTACTS = (EMAIL, PHONE, NAME)
SHOP = """
source: shop
timezone: UTC
tables:
  profiles:
    path: customers.csv
    columns: {source_user_id: id, full_name: name, email: email, city: city, valid_from: changed, referred_by: by}
  identities:
    path: identities.csv
    columns: {source_user_id: id, id_type: kind, id_value: value, observed_at: at}
  events:
    path: events.csv
    max_rejected: 1
    columns: {source_user_id: id, event_id: event, event_type: kind, ts: at, item_id: item, page: page, properties: more}
  touches:
    path: touches.csv
    columns: {touch_id: touch, campaign_id: campaign, source_user_id: id, ts: at}
"""
TILL = """
source: till
timezone: UTC
tables:
  transactions:
    path: orders.csv
    columns: {order_id: number, source_user_id: card, item_id: item, ts: at, quantity: n, amount: paid}
  identities:
    path: cards.csv
    columns: {source_user_id: card, id_type: kind, id_value: value}
"""


def write_exports(folder: Path, day: datetime = datetime(2026, 3, 1)) -> None:
    """The exports of both systems, 60 days from `day`; 30 other customers, one of whom was referred by the planted one."""
    folder.mkdir(parents=True, exist_ok=True)
    people = [f"person-{number:04d}" for number in range(30)]
    cards = [f"card-{number:010d}" for number in range(30)]
    at = [f"{day + timedelta(days=number, hours=number % 9):%Y-%m-%d %H:%M:%S}" for number in range(60)]
    customers = [[one, f"Name {one}", f"{one}@example.org", "Leeds", at[0], ""] for one in people]
    customers[3][-1] = USER_ID
    customers += [[USER_ID, NAME, EMAIL, "York", at[0], ""], [USER_ID, NAME, EMAIL, "Hull", at[20], ""]]
    _write(folder / "customers.csv", ["id", "name", "email", "city", "changed", "by"], customers)
    seen = [[one, "email", f"{one}@example.org", at[1]] for one in people]
    seen += [[one, "device", "family-tablet-11", at[1]] for one in (*people[:6], USER_ID)]
    seen += [[USER_ID, "email", EMAIL, at[1]], [USER_ID, "phone", PHONE, at[2]], [USER_ID, "login", EMAIL, at[2]]]
    seen += [[one, "anonymous_id", f"shop:{VISITOR}", at[3]] for one in (VISITOR, USER_ID)]
    _write(folder / "identities.csv", ["id", "kind", "value", "at"], seen)
    events = [
        [one, f"e{number}-{place}", "view", at[place], f"item-{place % 5}", f"/p/{place % 5}", '{"from": "home"}']
        for number, one in enumerate([*people, USER_ID, VISITOR])
        for place in range(5)
    ]
    events[0][-2:] = [f"/wishlist/{USER_ID}?tab=1", f'{{"gift_for": "{USER_ID}", "from": "home"}}']
    events += [
        [USER_ID, "bad", "view", "someday", "item-1", "/p/1", ""],
        ["", "bad2", "view", "never", "", USER_ID, ""],
    ]
    events += [[people[1], "bad3", "view", "someday", "item-1", "/p/1", ""]]
    _write(folder / "events.csv", ["id", "event", "kind", "at", "item", "page", "more"], events)
    touches = [[f"t{number}", "spring", one, at[10]] for number, one in enumerate([*people, USER_ID])]
    _write(folder / "touches.csv", ["touch", "campaign", "id", "at"], touches)
    orders = [
        [f"o{number}-{place}", one, f"item-{(number + place) % 5}", at[number % 20 + place * 9], 1 + place % 2, 4.5]
        for number, one in enumerate([*cards, CARD])
        for place in range(4)
    ]
    _write(folder / "orders.csv", ["number", "card", "item", "at", "n", "paid"], orders)
    held = [[card, "email", f"{one}@example.org"] for card, one in zip(cards, people, strict=True)]
    _write(folder / "cards.csv", ["card", "kind", "value"], [*held, [CARD, "email", EMAIL]])
    (folder / "shop.yaml").write_text(SHOP, encoding="utf-8")
    (folder / "till.yaml").write_text(TILL, encoding="utf-8")


def read_exports(workspace: Workspace, folder: Path) -> dict[str, IngestReport]:
    return {
        name: ingest(workspace, FileSource(folder / f"{name}.yaml"), Settings(), now=NOW) for name in ("shop", "till")
    }


def forbidden(one_ids: Sequence[str], identifiers: Sequence[str]) -> list[str]:
    """All that must not be found any more: ids, contact values, and hashes of them."""
    ids = [USER_ID, CARD, VISITOR]
    hashed = [
        hasher(text.encode()).hexdigest()
        for text in (*ids, *CONTACTS, EMAIL.upper(), *(f"shop\x1f{one}" for one in ids))
        for hasher in (hashlib.sha256, hashlib.md5)
    ]
    return [*ids, *CONTACTS, *hashed, *(text[:16] for text in hashed), *one_ids, *identifiers]


def places_with(root: Path, texts: Sequence[str]) -> set[str]:
    """The files in which any of the texts is, as bytes or decoded; a scan that shares no code with the product."""
    found = set()
    for file in (path for path in root.rglob("*") if path.is_file()):
        content = file.read_bytes()
        parts = [content, content.replace(b"\0", b"")]  # UCS-4 texts of arrays lose their zeros
        if file.suffix == ".parquet":
            parts.append(repr(pq.read_table(file).to_pydict()).encode())
        elif file.suffix == ".npy":
            parts.append(repr(np.load(file, allow_pickle=False).tolist()).encode())
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                parts += [archive.read(name).replace(b"\0", b"") for name in archive.namelist()]
        elif content.startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
                parts += [line.encode(errors="replace") for line in connection.iterdump()]
        if any(text.encode() in part for text in texts for part in parts):
            found.add(str(file.relative_to(root)))
    return found


def _write(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
