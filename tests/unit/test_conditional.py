"""ETag, If-Match and If-None-Match."""

import pytest

from fastapi_k8s.conditional import entity_tag, json_response_with_etag, satisfies_if_match

BODY = b'{"name":"Lamp"}'
TAG = entity_tag(BODY)
OTHER_TAG = entity_tag(b"{}")


def test_a_tag_is_strong_and_quoted() -> None:
    assert TAG.startswith('"')
    assert TAG.endswith('"')
    assert "," not in TAG


def test_equal_bytes_have_equal_tags_and_other_bytes_another() -> None:
    assert entity_tag(bytes(bytearray(BODY))) == TAG
    assert OTHER_TAG != TAG


def test_a_representation_is_sent_with_its_entity_tag() -> None:
    response = json_response_with_etag(BODY)
    assert (response.status_code, response.body, response.headers["etag"]) == (200, BODY, TAG)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "header", [TAG, f"W/{TAG}", "*", " * ", f"{OTHER_TAG}, {TAG}", f'W/"x",W/{TAG} , "y"']
)
def test_if_none_match_that_lists_the_tag_gives_304_without_a_body(header: str) -> None:
    response = json_response_with_etag(BODY, if_none_match=header)
    assert (response.status_code, response.body, response.headers["etag"]) == (304, b"", TAG)


@pytest.mark.parametrize(
    "header", [OTHER_TAG, "", '""', TAG.strip('"'), TAG[:-2] + '"', f"{OTHER_TAG},"]
)
def test_if_none_match_that_does_not_list_the_tag_gives_200(header: str) -> None:
    assert json_response_with_etag(BODY, if_none_match=header).status_code == 200


@pytest.mark.parametrize("header", [None, TAG, "*", f"{OTHER_TAG}, {TAG}", f'W/"x",{TAG}'])
def test_if_match_accepts_the_current_tag(header: str | None) -> None:
    assert satisfies_if_match(header, BODY)


@pytest.mark.parametrize("header", [OTHER_TAG, f"W/{TAG}", "W/*", "", f"{OTHER_TAG}, W/{TAG}"])
def test_if_match_does_not_accept_other_or_weak_tags(header: str) -> None:
    assert not satisfies_if_match(header, BODY)
