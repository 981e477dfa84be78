"""Entity tags and the headers that name them."""

import pytest

from fastapi_k8s.conditional import check_match, entity_tag, tagged
from fastapi_k8s.errors import ProblemError

BODY = b'{"name":"Lamp"}'
TAG = entity_tag(BODY)
OTHER = entity_tag(b"{}")


def test_a_tag_is_strong_and_quoted() -> None:
    assert TAG.startswith('"')
    assert TAG.endswith('"')
    assert "," not in TAG


def test_a_tag_is_the_same_for_the_same_bytes_and_another_for_others() -> None:
    assert entity_tag(bytes(bytearray(BODY))) == TAG
    assert OTHER != TAG


def test_a_representation_is_sent_with_its_tag() -> None:
    answer = tagged(BODY)
    assert (answer.status_code, answer.body, answer.headers["etag"]) == (200, BODY, TAG)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "header", [TAG, f"W/{TAG}", "*", " * ", f"{OTHER}, {TAG}", f'W/"x",W/{TAG} , "y"']
)
def test_if_none_match_that_lists_the_tag_gives_304_without_a_body(header: str) -> None:
    answer = tagged(BODY, header)
    assert (answer.status_code, answer.body, answer.headers["etag"]) == (304, b"", TAG)


@pytest.mark.parametrize("header", [OTHER, "", '""', TAG.strip('"'), TAG[:-2] + '"', f"{OTHER},"])
def test_if_none_match_that_does_not_list_the_tag_gives_200(header: str) -> None:
    assert tagged(BODY, header).status_code == 200


@pytest.mark.parametrize("header", [None, TAG, "*", f"{OTHER}, {TAG}", f'W/"x",{TAG}'])
def test_if_match_accepts_the_current_tag(header: str | None) -> None:
    check_match(header, BODY)


@pytest.mark.parametrize("header", [OTHER, f"W/{TAG}", "W/*", "", f"{OTHER}, W/{TAG}"])
def test_if_match_refuses_other_and_weak_tags(header: str) -> None:
    with pytest.raises(ProblemError) as caught:
        check_match(header, BODY)
    assert caught.value.status_code == 412
