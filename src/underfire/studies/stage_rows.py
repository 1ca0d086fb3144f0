"""What stages hold of a run's images, read some at a time, so that a table of many images takes little memory.

def rows(held: StageRows) -> pa.Table:
    return per_image(SCHEMA, held.ids, map_l1=map_l1(held.of(attacked, "map"), held.of(benign, "map")))

table = by_parts(ids, store, rows)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
from torch import Tensor

from underfire.core.rows import in_parts
from underfire.runs.needs import SHARD
from underfire.runs.specs import Spec, key
from underfire.runs.store import Store


@dataclass(frozen=True)
class StageRows:
    """The rows of some images."""

    ids: tuple[str, ...]
    store: Store

    def of(self, spec: Spec, name: str) -> Tensor:
        return self.store.read(key(spec), name, self.ids)

    def maps(self, drawn: Iterable[Spec]) -> list[Tensor]:
        """By each draw."""
        return [self.of(each, "map") for each in drawn]


def by_parts(ids: tuple[str, ...], store: Store, table: Callable[[StageRows], pa.Table]) -> pa.Table:
    """The tables of all images, one below another."""
    return pa.concat_tables(table(StageRows(part, store)) for part in in_parts(ids, SHARD))
