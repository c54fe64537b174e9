"""A customer is taken out of the files that commands have written, and out of nothing that was changed since."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.exports import CHAMPIONS, begin_export, digest_of, index_file, read_exports, record_export
from features.erasure.files import erase_rows
from features.interactions import TrainingSet
from models.bundle import ModelBundle
from models.recommend.popular import PopularRecommender
from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace
from training.erased_exports import erase_exports

NOW = datetime(2026, 1, 2, 3, 4, 5)
GONE = ErasedCustomer((("shop", "u7"), ("web", "visit, 9")), ("one7",), ("h1:abc",))
CUSTOMERS = [("u7", "shop", "one7"), ("u7", "web", "one8"), ("u9", "shop", "one9")]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace").create()


def scores() -> pa.Table:
    """Three rows a customer, with reasons and a dictionary column."""
    rows = [(*customer, rank) for customer in CUSTOMERS for rank in range(3)]
    user_id, source, one_id, rank = (list(column) for column in zip(*rows, strict=True))
    columns = {"user_id": user_id, "user_source": source, "one_id": pa.array(one_id).dictionary_encode(), "rank": rank}
    return pa.table(columns | {"reasons": [["because, of", one] for one in user_id]})


def test_rows_leave_a_parquet_file_that_otherwise_stays(workspace, tmp_path):
    out = tmp_path / "scores.parquet"
    pq.write_table(scores(), out, compression="gzip", row_group_size=4)
    record_export(workspace, out, NOW)
    assert erase_exports(workspace, GONE).removed == 3
    left, file = pq.read_table(out), pq.ParquetFile(out)
    assert left.schema == scores().schema
    assert left.to_pylist() == scores().to_pylist()[3:]
    assert {file.metadata.row_group(place).column(0).compression for place in range(file.num_row_groups)} == {"GZIP"}
    assert b"one7" not in out.read_bytes()
    assert erase_exports(workspace, GONE) == erase_exports(workspace, GONE)
    assert erase_exports(workspace, GONE).removed == 0
    assert erase_exports(workspace, GONE).not_reached == ()


def test_rows_leave_a_report_whose_other_lines_stay(workspace, tmp_path):
    out = tmp_path / "churn.html"
    kept = '<tbody>\n<tr data-one-id="one78"><td>u7</td></tr>\n'
    out.write_text(f'{kept}<tr data-one-id="one7"><td>u7</td></tr>\n</tbody>\n', encoding="utf-8")
    record_export(workspace, out, NOW)
    assert erase_exports(workspace, GONE) == Erased(1)
    assert out.read_text(encoding="utf-8") == f"{kept}</tbody>\n"
    assert erase_exports(workspace, GONE) == Erased(0)


def test_rows_leave_a_csv_file_whose_other_bytes_stay(workspace, tmp_path):
    out = tmp_path / "scores.csv"
    header, others = '"user_id","user_source",reasons\r\n', ['u7,web,"[""a,\nb""]"\r\n', "u9,shop,\r\n"]
    out.write_text(
        header + 'u7,shop,"[""x""]"\r\n' + others[0] + '"visit, 9",web,"two\nlines"\r\n' + others[1], newline=""
    )
    record_export(workspace, out, NOW)
    assert erase_exports(workspace, GONE).removed == 2
    assert out.read_bytes().decode() == header + "".join(others)
    inode = out.stat().st_ino
    assert erase_exports(workspace, GONE).removed == 0
    assert out.stat().st_ino == inode


def test_ids_of_others_that_have_the_id_in_them_stay(workspace, tmp_path):
    gone = ErasedCustomer((("shop", "customer-12"),), ("one7",), (), ("customer-12-b",))
    rows = [
        ["customer-12", "shop", "x"],
        ["customer-12-b", "shop", "with customer-12"],
        ["u9", "shop", "customer-12-b"],
    ]
    names = ["user_id", "user_source", "note"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    nested = [["a"], ["by customer-12-b"], ["b"]]
    pq.write_table(pa.table({**columns, "reasons": nested}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("\n".join(";".join(row) for row in [names, *rows]), encoding="utf-8-sig")
    for name in ("a.parquet", "a.csv"):
        record_export(workspace, tmp_path / name, NOW)
    assert erase_exports(workspace, gone).removed == 4
    left = [["customer-12-b", "shop", "with (erased)"], ["u9", "shop", "customer-12-b"]]
    assert [list(row.values())[:3] for row in pq.read_table(tmp_path / "a.parquet").to_pylist()] == left
    text = (tmp_path / "a.csv").read_text(encoding="utf-8-sig")
    assert text == "\n".join(";".join(row) for row in [names, *left])


def test_a_mention_in_a_list_takes_its_row(tmp_path):
    gone, file = ErasedCustomer((("shop", "customer-12"),), ()), tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3], "by": [["x"], ["a", "customer-12"], None]}), file)
    assert erase_rows(file, gone) == 1
    assert pq.read_table(file)["n"].to_pylist() == [1, 3]


def test_pairs_of_records_and_folders_of_parts_are_reached(workspace, tmp_path):
    folder = tmp_path / "by spark"
    folder.mkdir()
    pairs = {"left_source": ["shop", "web"], "left_source_user_id": ["u7", "u7"], "p": [0.1, 0.2]}
    for part in ("part-0.parquet", "part-1.parquet"):
        pq.write_table(pa.table(pairs), folder / part)
    record_export(workspace, folder, NOW)
    assert erase_exports(workspace, GONE).removed == 2
    assert pq.read_table(folder)["left_source"].to_pylist() == ["web", "web"]


def test_what_was_changed_moved_or_cannot_be_read_is_named(workspace, tmp_path):
    for name in ("changed.csv", "moved.csv", "broken.parquet"):
        (tmp_path / name).write_text("user_id\nu7\n")
        record_export(workspace, tmp_path / name, NOW)
    (tmp_path / "changed.csv").write_text("user_id\nu7\nu8\n")
    (tmp_path / "moved.csv").rename(tmp_path / "elsewhere.csv")
    found = erase_exports(workspace, GONE)
    assert found.removed == 0
    assert [text.split(": ")[1].split(" since")[0].split(" (")[0] for text in found.not_reached] == [
        "changed",
        "moved or deleted",
        "cannot be read or written",
    ]
    assert (tmp_path / "changed.csv").read_text() == "user_id\nu7\nu8\n"
    assert not any("u7" in text for text in found.not_reached)


def test_exported_champions_lose_the_customer_and_built_bentos_are_named(workspace, tmp_path):
    champions = tmp_path / "home" / "models" / "qianmian-champions" / "v1"
    train = TrainingSet.from_arrays(np.array([0, 1]), np.array([0, 0]), n_users=2, n_items=1)
    model = PopularRecommender().fit(train)
    for job in ("recommend", "content"):
        bundle = ModelBundle("popular", model, NOW, None, np.array(["one7", "one9"]), train.item_ids)
        bundle.save(champions / "models" / job)
    (champions / "index.json").write_text("{}")
    bento = tmp_path / "home" / "bentos" / "qianmian" / "b1"
    bento.mkdir(parents=True)
    (bento / "bento.yaml").write_text("models:\n- tag: qianmian-champions:v1\n")
    record_export(workspace, champions, NOW, CHAMPIONS)
    found = erase_exports(workspace, GONE)
    assert found.removed == 2
    for job in ("recommend", "content"):
        assert ModelBundle.load(champions / "models" / job).user_ids.tolist() == ["one9"]
    (named,) = found.not_reached
    assert "Bento qianmian:b1" in named
    assert "bentoml delete qianmian:b1" in named


def test_blocks_of_scores_that_were_interrupted_are_removed(workspace, tmp_path):
    out = tmp_path / "scores.parquet"
    begin_export(workspace, out, NOW)
    blocks = tmp_path / f".{out.name}.{'0f' * 8}.blocks"
    blocks.mkdir()
    pq.write_table(scores(), blocks / "000000.parquet")
    (tmp_path / f".other.parquet.{'0f' * 8}.blocks").mkdir()
    assert erase_exports(workspace, GONE) == Erased(1)
    assert not blocks.exists()
    pq.write_table(scores(), out)  # written, and the process was killed before it could say so
    assert erase_exports(workspace, GONE) == Erased(3)
    record_export(workspace, out, NOW)
    begin_export(workspace, out, NOW)
    assert [one.digest for one in read_exports(workspace)] == [digest_of(out)]
    assert len(list(tmp_path.glob(".*.blocks"))) == 1


def test_the_index_has_one_entry_a_path_and_is_checked(workspace, tmp_path, caplog):
    out = tmp_path / "a.csv"
    for text in ("a\n", "b\n"):
        out.write_text(text)
        record_export(workspace, out, NOW)
    assert [(one.path, one.digest, one.written_at) for one in read_exports(workspace)] == [
        (str(out), digest_of(out), "2026-01-02T03:04:05")
    ]
    index_file(workspace).write_text(json.dumps({"exports": [{"path": 1}]}))
    with pytest.raises(WorkspaceError, match="index of written files"):
        erase_exports(workspace, GONE)
    record_export(workspace, out, NOW)  # the command that wrote the file has succeeded
    assert "exports=not recorded" in caplog.text
    assert read_exports(Workspace(Path(tmp_path / "another"))) == []
