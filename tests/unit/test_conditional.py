"""Entity tags, and which values of If-Match and If-None-Match match them."""

import pytest

from fastapi_k8s.conditional import entity_tag, json_response_with_etag, satisfies_if_match

BODY = b'{"name":"Lamp"}'
ETAG = entity_tag(BODY)
OTHER_ETAG = entity_tag(b"{}")


def test_an_entity_tag_is_strong_and_quoted() -> None:
    assert ETAG.startswith('"')
    assert ETAG.endswith('"')
    assert "," not in ETAG


def test_equal_bodies_have_equal_entity_tags_and_other_bodies_have_others() -> None:
    assert entity_tag(bytes(bytearray(BODY))) == ETAG
    assert OTHER_ETAG != ETAG


def test_a_response_has_the_entity_tag_of_its_body() -> None:
    response = json_response_with_etag(BODY)
    assert (response.status_code, response.body, response.headers["etag"]) == (200, BODY, ETAG)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "header", [ETAG, f"W/{ETAG}", "*", " * ", f"{OTHER_ETAG}, {ETAG}", f'W/"x",W/{ETAG} , "y"']
)
def test_if_none_match_with_the_entity_tag_gives_304_without_a_body(header: str) -> None:
    response = json_response_with_etag(BODY, if_none_match=header)
    assert (response.status_code, response.body, response.headers["etag"]) == (304, b"", ETAG)


@pytest.mark.parametrize(
    "header", [OTHER_ETAG, "", '""', ETAG.strip('"'), ETAG[:-2] + '"', f"{OTHER_ETAG},"]
)
def test_if_none_match_without_the_entity_tag_gives_200(header: str) -> None:
    assert json_response_with_etag(BODY, if_none_match=header).status_code == 200


@pytest.mark.parametrize("header", [None, ETAG, "*", f"{OTHER_ETAG}, {ETAG}", f'W/"x",{ETAG}'])
def test_if_match_accepts_the_current_entity_tag(header: str | None) -> None:
    assert satisfies_if_match(header, BODY)


@pytest.mark.parametrize("header", [OTHER_ETAG, f"W/{ETAG}", "W/*", "", f"{OTHER_ETAG}, W/{ETAG}"])
def test_if_match_does_not_accept_other_or_weak_entity_tags(header: str) -> None:
    assert not satisfies_if_match(header, BODY)
