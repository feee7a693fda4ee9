"""Writes types.parquet: columns of types that are read, and of types that are not. Needs pyarrow."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

columns = {
    "number": pa.array([0.5, 1.5, 2.5]),
    "count": pa.array([1, 2, 3], pa.uint32()),
    "kind": pa.array(["a", "b", "a"]),
    "pair": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())),
    "small": pa.array([0, 1, 0], pa.int8()),
    "half": pa.array([0.5, 1.5, 2.5], pa.float16()),
    "fixed": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
    "price": pa.array([Decimal("1.25"), Decimal("2.50"), Decimal("0.75")]),
    "time": pa.array([datetime(2020, 1, day) for day in (1, 2, 3)]),
    "record": pa.array([{"x": 1}, {"x": 2}, {"x": 3}]),
    "category": pa.array(["a", "b", "a"]).dictionary_encode(),
    "bytes": pa.array([b"a", b"b", b"a"]),
    "large": pa.array([0, 2**63, 1], pa.uint64()),
}
pq.write_table(pa.table(columns), Path(__file__).parent / "types.parquet", compression="none", use_dictionary=False)
