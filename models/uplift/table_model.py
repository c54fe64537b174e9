"""`UpliftTableModel`: an uplift model over the columns of a table with one row a customer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.classify.snapshot_model import SnapshotColumn, encoded
from models.persist import UserArrays, load_json
from models.uplift.uplift_model import UpliftModel
from qianmian.workspace import write_json


@dataclass(frozen=True)
class UpliftTableModel:
    """The uplift of the customers of a table, learnt from a randomised test. It keeps no row of the table.

    Attributes
    ----------
    columns : tuple of SnapshotColumn
    uplift : UpliftModel
    treatment, outcome : str
        The columns of the test that said who was contacted, and what came of it.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    columns: tuple[SnapshotColumn, ...] = ()
    uplift: UpliftModel = field(default_factory=UpliftModel)
    treatment: str = ""
    outcome: str = ""

    def encode(self, table: pa.Table) -> NDArray[np.float32]:
        """Return the columns of the model, float32, (n, f), of a table of texts (`features.snapshot_table`).

        Raises
        ------
        DataError
            Columns are missing.
        """
        return encoded(table, self.columns)

    def predict(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the uplift of each customer, float64, (n,)."""
        return self.uplift.predict(values)

    def save(self, folder: Path) -> None:
        """Write the uplift model and the columns as JSON."""
        self.uplift.save(folder / "uplift")
        columns = [asdict(column) for column in self.columns]
        write_json(folder / "table.json", {"columns": columns, "treatment": self.treatment, "outcome": self.outcome})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        found = load_json(folder / "table.json")
        columns = tuple(map(SnapshotColumn.from_dict, found["columns"]))
        return cls(columns, UpliftModel.load(folder / "uplift"), found["treatment"], found["outcome"])
