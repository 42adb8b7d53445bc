"""What the OpenAPI document says of each route, with examples.

Knows no handler; `app` puts the two together.
"""

from __future__ import annotations

from typing import Any

from keepmap.serving.wishes import FORMS, INCLUDED, SHAPES

ABOUT = "Segmentation masks of images, by one trained model. Errors are JSON: what was found, expected, and what to do."

_ERROR = {
    "error": {
        "summary": "The image has 4 channels.", "found": "4 channels",
        "expected": "3 channels, as in the images that the network was trained on",
        "do": "convert the image, or train on images like this one",
    }
}  # fmt: skip
_CLASS = {
    "index": 1, "name": "nucleus", "value": 255, "colour": [255, 159, 28], "ground": False, "pixels": 8123,
    "percent": 12.4, "objects": 37, "smallest": 40, "median": 211, "mean": 219.5, "largest": 530,
    "area": 1015.4, "area_unit": "micrometer^2",
}  # fmt: skip
_ANSWER = {
    "image": {
        "height": 256, "width": 256, "channels": 3, "dtype": "uint8", "format": "PNG", "spacing": None, "unit": None,
        "coordinates": "pixels of the image: x to the right, y down, from its upper left corner",
    },
    "classes": [_CLASS],
    "runs": {"indices": [0, 1, 0], "lengths": [31000, 8123, 26413]},
}  # fmt: skip
_JOB = {
    "id": "0f3c9a1be2d44c55a6e7f8091a2b3c4d", "state": "running", "progress": 0.42, "received": 1790000000.0,
    "ended": None, "status": "/v1/jobs/0f3c9a1be2d44c55a6e7f8091a2b3c4d",
}  # fmt: skip
_WORDS = {
    400: "the request is not understood", 401: "a token is needed",
    403: "a page of another site, or another name of the server", 404: "there is no such thing",
    406: "no such answer", 408: "the request came too slowly", 409: "not done yet", 413: "too many bytes",
    415: "a file of another kind", 422: "the image cannot be predicted", 429: "busy: see Retry-After", 503: "not ready",
    507: "no room on the disk",
}  # fmt: skip


def _errors(*statuses: int) -> dict[int, dict[str, Any]]:
    content = {"application/json": {"example": _ERROR}}
    return {status: {"description": _WORDS[status], "content": content} for status in statuses}


def _json(description: str, example: object) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


def _parameter(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


_BINARY = {"type": "string", "format": "binary"}
_UPLOAD: dict[str, Any] = {
    "parameters": [
        _parameter(
            "as", "form of the answer; without it Accept decides, and without that it is the mask that `keepmap "
            "predict` writes: TIFF for TIFF, else PNG. npy: class probabilities (K, H, W) float32",
            {"type": "string", "enum": ["same", *FORMS]},
        ),
        _parameter(
            "shapes", "in JSON: the map as runs of class indices, row after row, or as polygons (GeoJSON)",
            {"type": "string", "enum": [*SHAPES], "default": "none"},
        ),
        _parameter("include", "in JSON: " + ", ".join(INCLUDED) + ", in base64; with commas", {"type": "string"}),
        _parameter("frame", "which frame, from 0, of a file with several", {"type": "integer", "minimum": 0}),
    ],
    "requestBody": {
        "required": True, "description": "an image: PNG, JPEG, WebP, BMP, TIFF or GeoTIFF",
        "content": {
            "application/octet-stream": {"schema": _BINARY}, "image/*": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": _BINARY}, "required": ["image"]}
            },
        },
    },
}  # fmt: skip
_FILES = {media: {"schema": _BINARY} for name, (media, _) in FORMS.items() if name != "json"}

PREDICT: dict[str, Any] = {
    "summary": "The mask of an image", "openapi_extra": _UPLOAD,
    "responses": {
        200: {"description": "the answer", "content": {**_FILES, "application/json": {"example": _ANSWER}}},
        **_errors(400, 401, 403, 406, 408, 413, 415, 422, 429, 503, 507),
    },
}  # fmt: skip
CREATE_JOB: dict[str, Any] = {
    "summary": "Predict a large image later", "openapi_extra": _UPLOAD, "status_code": 202,
    "responses": {
        202: _json("received whole; it survives a restart", _JOB),
        **_errors(400, 401, 403, 406, 408, 413, 429, 503, 507),
    },
}  # fmt: skip
SHOW_JOB: dict[str, Any] = {
    "summary": "State and progress of a job",
    "responses": {200: _json("queued, running, done or failed", _JOB), **_errors(401, 404)},
}  # fmt: skip
DELETE_JOB: dict[str, Any] = {
    "summary": "Stop a job and forget it", "status_code": 204,
    "responses": {204: {"description": "it is gone"}, **_errors(401, 404)},
}  # fmt: skip
JOB_RESULT: dict[str, Any] = {
    "summary": "The answer of a job that is done",
    "responses": {200: {"description": "the answer", "content": _FILES}, **_errors(401, 404, 409)},
}  # fmt: skip
MODEL: dict[str, Any] = {
    "summary": "The model card",
    "responses": {200: _json("what is served", {"name": "run", "network": "unet", "classes": []}), **_errors(401)},
}  # fmt: skip
HEALTH: dict[str, Any] = {
    "summary": "Whether the process lives", "responses": {200: _json("it does", {"status": "alive"})},
}  # fmt: skip
READY: dict[str, Any] = {
    "summary": "Whether predictions are taken",
    "responses": {200: _json("they are", {"status": "ready"}), **_errors(503)},
}  # fmt: skip
METRICS: dict[str, Any] = {
    "summary": "Counters and durations for Prometheus",
    "responses": {200: {"description": "text", "content": {"text/plain": {}}}, **_errors(401)},
}  # fmt: skip
for _route in (SHOW_JOB, DELETE_JOB, JOB_RESULT):
    _route["openapi_extra"] = {
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    }
