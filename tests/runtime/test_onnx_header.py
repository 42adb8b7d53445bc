"""The header of an ONNX file, against the onnx package; and whatever is no ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepmap.errors import ArtefactError
from keepmap.runtime.onnx_header import read_header


def test_header_is_what_the_package_reads(onnx_file: Path, model: Any) -> None:
    header = read_header(onnx_file)
    assert (header.ir, header.opset) == (model.ir_version, model.opset_import[0].version)
    assert header.metadata == {entry.key: entry.value for entry in model.metadata_props}


def complaint(path: Path) -> str:
    """What is said of a file; "" where it has a header."""
    try:
        read_header(path)
    except ArtefactError as error:
        return str(error)
    return ""


def test_a_file_cut_anywhere_is_refused_or_has_lost_its_metadata(onnx_file: Path) -> None:
    whole = onnx_file.read_bytes()
    for length in range(0, len(whole), 7):
        onnx_file.write_bytes(whole[:length])
        said = complaint(onnx_file)
        assert "no whole ONNX file" in said if said else not read_header(onnx_file).metadata


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_other_bytes_are_a_named_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.onnx"
    path.write_bytes(data)
    said = complaint(path)
    assert "any.onnx" in said if said else read_header(path).opset


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_header(tmp_path / "none.onnx")
