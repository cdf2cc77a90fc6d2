"""Keys to an S3 server, in files of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.audit.anchors.bucket import Keys
from holdfast.audit.s3 import first_line, read_key
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"two\nlines", b"k\xc3\xa9y", b"\0"])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b" AKIA/+=\n")
    bad.write_bytes(content)
    assert read_key(good) == "AKIA/+="
    for files in ((good, bad), (bad, good)):
        with pytest.raises(ConfigurationError) as caught:
            Keys(*files).retrieve()
        assert str(caught.value) == f"{bad}: holds no key; expected one line without white space."


def test_the_first_line_of_an_error_is_told() -> None:
    assert first_line(ValueError("\nno such host.\n\nthe request: secret")) == "no such host"
