"""base64url without padding."""

import pytest

from tenant_schemas import base64url


@pytest.mark.parametrize("length", range(5))
def test_bytes_come_back_from_a_text_for_urls(length: int) -> None:
    raw = b"\xfb\xff\xfe\x00\x3e"[:length]
    text = base64url.encode(raw)
    assert not {*text} & {*"+/="}
    assert base64url.decode(text) == raw


@pytest.mark.parametrize("text", ["A", "AAAAA", "ä"])
def test_what_no_bytes_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"padding|encoded|ASCII"):
        base64url.decode(text)
