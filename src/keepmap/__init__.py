"""keepmap: from a folder of images and masks to a segmentation model that is trained, measured and used.

Names resolve on first use, so that importing this package loads neither torch nor any optional package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from keepmap.api import (
        bench,
        build_model,
        check,
        check_segmenter,
        compare,
        convert,
        demo,
        describe_network,
        evaluate,
        export,
        import_weights,
        list_models,
        load,
        plan,
        predict,
        serve,
        train,
    )

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


def __getattr__(name: str) -> Any:
    if name in __all__:
        from keepmap import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module 'keepmap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
