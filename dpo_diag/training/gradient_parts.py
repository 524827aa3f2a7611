"""Rows of gradient features on disk: parts written whole or not at all, found by pair.

A part is an ``.npz`` of some pairs' rows; what is asked for is gathered from the parts into
``.npy`` files that are read without loading them. Numpy only. Start reading at ``Parts``.
"""

import logging
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag.content import content_hash
from dpo_diag.training.gradient_sketch import Row

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gathered:
    """Rows of n pairs in the order asked for; the matrices are mapped from disk.

    Attributes:
        plain: (n, k) float32.
        adam: (n, k) float32, or None.
        squares: (n,) float64, squared norms before any projection.
        adam_squares: (n,) float64, or None.
    """

    plain: np.ndarray
    adam: np.ndarray | None
    squares: np.ndarray
    adam_squares: np.ndarray | None


class Parts:
    """The rows under one address.

    Args:
        folder: created by the first part.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def add(self, pair_ids: Sequence[str], rows: Sequence[Row]) -> None:
        """Write rows as one part.

        Args:
            pair_ids: of the rows, one each.
            rows: at least one; all with or all without a preconditioned variant.
        """
        arrays: dict[str, np.ndarray] = {
            "pair_ids": np.array(pair_ids, dtype=np.str_),
            "plain": np.stack([row.plain for row in rows]),
            "squares": np.array([row.square for row in rows]),
        }
        if rows[0].adam is not None:
            arrays["adam"] = np.stack([row.adam for row in rows])
            arrays["adam_squares"] = np.array([row.adam_square for row in rows])
        name = f"part-{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}.npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.partial"
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, self.folder / name)

    def known(self) -> dict[str, tuple[Path, int]]:
        """Where each pair's row is: part and row in it; unreadable parts are left out."""
        found: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("part-*.npz")):
            try:
                with np.load(path, allow_pickle=False) as part:
                    ids = part["pair_ids"].tolist()
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                logger.warning("%s: unreadable, its rows will be made again: %s", path, error)
                continue
            for row, pair_id in enumerate(ids):
                found.setdefault(pair_id, (path, row))
        return found

    def gather(self, pair_ids: Sequence[str]) -> Gathered:
        """The rows of the pairs, every one of which is known; equal ids get equal rows.

        The matrices are written once per set of pairs, beside the parts.
        """
        target = self.folder / f"set-{content_hash(list(pair_ids))[:24]}"
        if not (target / "squares.npy").exists():
            self._write(target, pair_ids)
        arrays = {path.stem: path for path in target.glob("*.npy")}
        return Gathered(
            plain=np.load(arrays["plain"], mmap_mode="r"),
            adam=np.load(arrays["adam"], mmap_mode="r") if "adam" in arrays else None,
            squares=np.load(arrays["squares"]),
            adam_squares=np.load(arrays["adam_squares"]) if "adam" in arrays else None,
        )

    def _write(self, target: Path, pair_ids: Sequence[str]) -> None:
        partial = self.folder / f".{target.name}.{os.getpid()}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        for rows, part in self._by_part(pair_ids):
            for name, values in part.items():
                if name not in arrays:
                    shape = (len(pair_ids), *values.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(
                        partial / f"{name}.npy", mode="w+", dtype=values.dtype, shape=shape
                    )
                arrays[name][rows] = values
        for array in arrays.values():
            array.flush()
        arrays.clear()
        try:
            os.replace(partial, target)
        except OSError:
            if not (target / "squares.npy").exists():  # else another process was first
                raise

    def _by_part(self, pair_ids: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Per part: the rows asked for that it fills, and what it fills them with."""
        known = self.known()
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for place, pair_id in enumerate(pair_ids):
            path, row = known[pair_id]
            wanted.setdefault(path, []).append((place, row))
        for path, places in wanted.items():
            rows = [row for _, row in places]
            with np.load(path, allow_pickle=False) as part:
                values = {name: part[name][rows] for name in part.files if name != "pair_ids"}
            yield [place for place, _ in places], values
