"""The bytes of a SAML message become a tree that can be read in one way only, or are refused.

What differs between parsers, or between what is signed and what is read, is not taken at all: no DTD and so no entity
(XXE, billion laughs), no comment and no processing instruction (they split a NameID in two), no CDATA section, no
encoding but UTF-8. Outside of these, XML has no `<!` and no `<?`, so that they are found in the bytes before any
parser has seen them, and so is how deep the elements lie. IDs are unique in the whole document, whatever the attribute
is called that holds them: a Reference then has one target (SAML core 5.4.2; Somorovsky et al., On Breaking SAML, 2012).
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from lxml import etree

from holdfast.errors import Unauthorized

if TYPE_CHECKING:
    from lxml.etree import _Element

MAX_DOCUMENT_BYTES = 256 << 10
MAX_POST_CHARACTERS = 2 * MAX_DOCUMENT_BYTES
MAX_DEPTH = 32
MAX_ELEMENTS = 8192
MAX_TAG_CHARACTERS = 8192

PROTOCOL = "{urn:oasis:names:tc:SAML:2.0:protocol}"
ASSERTION = "{urn:oasis:names:tc:SAML:2.0:assertion}"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}"
POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"

NOT_VALID = "the SAML message is not valid; get a new one"
TOO_LARGE = "the SAML message is too large: at most 256 KiB are read"

ID_ATTRIBUTES = frozenset({"id", "assertionid"})

_DECLARATION = re.compile(
    r"""<\?xml\s+version\s*=\s*["']1\.0["']"""
    r"""(?:\s+encoding\s*=\s*["'](?P<encoding>[A-Za-z0-9._-]+)["'])?"""
    r"""(?:\s+standalone\s*=\s*["'](?:yes|no)["'])?\s*\?>"""
)
_TAG = re.compile(r"""<(?P<end>/?)(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>""")
_MARKUP = {
    "<!--": "comment_not_allowed",
    "<![CDATA[": "cdata_not_allowed",
    "<!": "doctype_not_allowed",
    "<?": "processing_instruction_not_allowed",
}


def make_parser() -> etree.XMLParser:
    """A parser that reads neither files nor the network, expands no entity, adds nothing and repairs nothing."""
    return etree.XMLParser(
        encoding="utf-8",
        no_network=True,
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        collect_ids=False,
    )


def decode_post(value: str) -> bytes:
    """The XML in the field SAMLResponse of a posted form: base64, in lines or not (bindings 3.5.4).

    Raises Unauthorized.
    """
    if len(value) > MAX_POST_CHARACTERS:
        raise Unauthorized(TOO_LARGE, "too_large")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError as error:
        raise Unauthorized(NOT_VALID, "malformed") from error


def parse_document(document: bytes) -> _Element:
    """The root element. Raises Unauthorized."""
    text = _decode(document)
    _check_markup(text)
    _check_tags(text)
    try:
        root = etree.fromstring(text.encode(), make_parser())
    except etree.XMLSyntaxError as error:
        raise Unauthorized(NOT_VALID, "malformed") from error
    _check_ids(root)
    return root


def read_children(element: _Element) -> list[_Element]:
    """The elements in an element that holds nothing else. Raises Unauthorized."""
    children = list(element)
    if any((text or "").strip() for text in (element.text, *(child.tail for child in children))):
        raise Unauthorized(NOT_VALID, "malformed")
    return children


def read_text(element: _Element) -> str:
    """The text of an element that holds nothing else, exactly as it is. Raises Unauthorized."""
    if len(element):
        raise Unauthorized(NOT_VALID, "malformed")
    return element.text or ""


def read_attribute(element: _Element, name: str) -> str:
    """An attribute that must be there. Raises Unauthorized."""
    value = element.get(name)
    if value is None:
        raise Unauthorized(NOT_VALID, "malformed")
    return value


def local_name(element: _Element) -> str:
    """The element's name without its namespace."""
    return etree.QName(element).localname


def _decode(document: bytes) -> str:
    """The text after the XML declaration."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise Unauthorized(TOO_LARGE, "too_large")
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unauthorized(NOT_VALID, "wrong_encoding") from error
    if "\0" in text or text.startswith("\ufeff"):  # UTF-16 or UTF-32, or a mark that only the parser would drop
        raise Unauthorized(NOT_VALID, "wrong_encoding")
    declaration = _DECLARATION.match(text)
    if declaration is None:
        return text
    if (declaration["encoding"] or "utf-8").lower() != "utf-8":
        raise Unauthorized(NOT_VALID, "wrong_encoding")
    return text[declaration.end() :]


def _check_markup(text: str) -> None:
    for opening, why in _MARKUP.items():
        if opening in text:
            raise Unauthorized(NOT_VALID, why)


def _check_tags(text: str) -> None:
    """Bounds on the depth, the number and the length of tags, whatever else the parser then finds wrong with them."""
    depth = 0
    for count, tag in enumerate(_TAG.finditer(text), start=1):
        depth += -1 if tag["end"] else 1
        if depth > MAX_DEPTH:
            raise Unauthorized(NOT_VALID, "too_deep")
        if tag.end() - tag.start() > MAX_TAG_CHARACTERS or count > 2 * MAX_ELEMENTS:
            raise Unauthorized(NOT_VALID, "too_large")
        if text[tag.end() - 2] == "/" and not tag["end"]:
            depth -= 1


def _check_ids(root: _Element) -> None:
    ids = [
        value
        for element in root.iter()
        for name, value in element.attrib.items()
        if etree.QName(name).localname.lower() in ID_ATTRIBUTES
    ]
    if len(set(ids)) < len(ids):
        raise Unauthorized(NOT_VALID, "duplicate_id")
