"""The document names every form, and every answer that is an error comes with an example."""

from __future__ import annotations

from keepmap.serving import openapi
from keepmap.serving.wishes import FORMS, SHAPES


def test_parameters_are_those_that_are_read() -> None:
    parameters = {p["name"]: p for p in openapi.PREDICT["openapi_extra"]["parameters"]}
    assert set(parameters) == {"as", "shapes", "include", "frame"}
    assert parameters["as"]["schema"]["enum"] == ["same", *FORMS]
    assert parameters["shapes"]["schema"]["enum"] == list(SHAPES)
    assert {media for media, _ in FORMS.values()} == set(openapi.PREDICT["responses"][200]["content"])


def test_every_route_says_what_it_answers() -> None:
    from keepmap.serving.app import ROUTES

    for _, path, _, told in ROUTES[1:]:
        assert told["summary"] and told["responses"], path
        for status, answer in told["responses"].items():
            assert status < 400 or answer["content"]["application/json"]["example"]["error"], path
