"""Entity tags, and which values of If-Match and If-None-Match match them."""

import pytest

from fastapi_k8s.conditional import Preconditions, entity_tag, json_response_with_etag
from fastapi_k8s.errors import ProblemError

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
    "lines",
    [
        [ETAG],
        [f"W/{ETAG}"],
        ["*"],
        [" * "],
        [f"{OTHER_ETAG}, {ETAG}"],
        [f'W/"x",W/{ETAG} , "y"'],
        [OTHER_ETAG, ETAG],
        [ETAG, OTHER_ETAG],
        ['"a,b"', f'"c, d", {ETAG}'],
        ["", f", ,{ETAG},"],
        [OTHER_ETAG, "*"],
    ],
)
def test_if_none_match_with_the_entity_tag_gives_304_or_412(lines: list[str]) -> None:
    preconditions = Preconditions(if_none_match=lines)
    response = json_response_with_etag(BODY, preconditions=preconditions)
    assert (response.status_code, response.body, response.headers["etag"]) == (304, b"", ETAG)
    with pytest.raises(ProblemError, match="If-None-Match") as error:
        preconditions.check(BODY)
    assert error.value.status_code == 412


@pytest.mark.parametrize(
    "lines",
    [
        [OTHER_ETAG],
        [""],
        ['""'],
        [ETAG.strip('"')],
        [ETAG[:-2] + '"'],
        [f"{OTHER_ETAG},"],
        [f'"a,{ETAG[1:]}'],
    ],
)
def test_if_none_match_without_the_entity_tag_gives_200(lines: list[str]) -> None:
    preconditions = Preconditions(if_none_match=lines)
    assert json_response_with_etag(BODY, preconditions=preconditions).status_code == 200
    preconditions.check(BODY)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [ETAG],
        ["*"],
        ["*", "*"],
        [f"{OTHER_ETAG}, {ETAG}"],
        [f'W/"x",{ETAG}'],
        [OTHER_ETAG, ETAG],
        [ETAG, OTHER_ETAG],
        [f'"a,b", {ETAG}'],
    ],
)
def test_if_match_accepts_the_current_entity_tag(lines: list[str]) -> None:
    preconditions = Preconditions(if_match=lines)
    preconditions.check(BODY)
    assert json_response_with_etag(BODY, preconditions=preconditions).status_code == 200


@pytest.mark.parametrize(
    "lines",
    [
        [OTHER_ETAG],
        [f"W/{ETAG}"],
        ["W/*"],
        [""],
        [f"{OTHER_ETAG}, W/{ETAG}"],
        [OTHER_ETAG, "*"],
        [f'"a,{ETAG[1:]}'],
    ],
)
def test_if_match_does_not_accept_other_or_weak_entity_tags(lines: list[str]) -> None:
    preconditions = Preconditions(if_match=lines)
    with pytest.raises(ProblemError, match="If-Match") as error:
        preconditions.check(BODY)
    assert error.value.status_code == 412
    with pytest.raises(ProblemError, match="If-Match"):
        json_response_with_etag(BODY, preconditions=preconditions)


def test_if_match_takes_precedence_over_if_none_match() -> None:
    """RFC 9110, section 13.2.2."""
    with pytest.raises(ProblemError, match="If-Match"):
        Preconditions(if_match=[OTHER_ETAG], if_none_match=["*"]).check(BODY)
    with pytest.raises(ProblemError, match="If-None-Match"):
        Preconditions(if_match=[ETAG], if_none_match=["*"]).check(BODY)
    Preconditions(if_match=[ETAG], if_none_match=[OTHER_ETAG]).check(BODY)
