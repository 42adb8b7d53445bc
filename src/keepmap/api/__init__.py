"""The composition root: the public functions of keepmap, and nothing else.

Every verb turns its options into one frozen dataclass and hands them to the layers that do the work.
"""

from keepmap.api.data import check, convert
from keepmap.api.deployment import bench, export
from keepmap.api.models import build_model, check_segmenter, describe_network, list_models
from keepmap.api.prediction import compare, evaluate, load, predict
from keepmap.api.sample import demo
from keepmap.api.serving import serve
from keepmap.api.training import import_weights, plan, train

__all__ = [
    "bench",
    "build_model",
    "check",
    "check_segmenter",
    "compare",
    "convert",
    "demo",
    "describe_network",
    "evaluate",
    "export",
    "import_weights",
    "list_models",
    "load",
    "plan",
    "predict",
    "serve",
    "train",
]
