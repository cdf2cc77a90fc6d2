"""The witness over HTTP, as C2SP tlog-witness has it, and one call more.

    POST /add-checkpoint     a submission (see `holdfast.audit.anchors.submission`); the answer is a signature line

        400  not written as it must be, larger than any log, or the old size is larger than the checkpoint's
        403  no good signature of a key that is trusted for the log
        404  the log is not known
        409  text/x.tlog.size: the old size is not that of the latest checkpoint that was cosigned, which is answered
        409  text/plain: another root hash was cosigned at this size
        422  the proof does not prove it
        429  the log is new, and its key has begun too many today

    POST /add-certificate    the note in which a pinned root certifies a log's key; the answer is empty

        400  not written as it must be
        403  signed by no root that is trusted, or not valid now

Nobody has to say who they are: what is signed speaks for itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from holdfast.audit.anchors.submission import LARGEST_SUBMISSION, SIZE_TYPE
from holdfast.errors import BadRequest, HoldfastError, Internal
from holdfast.serving import read_body
from holdfast.witness.cosigning import OldSizeDiffers

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.witness.cosigning import Witness


class WitnessAPI:
    """The endpoints over `witness`."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/add-checkpoint", self._add_checkpoint, methods=["POST"]),
                Route("/add-certificate", self._add_certificate, methods=["POST"]),
            ],
            exception_handlers={
                OldSizeDiffers: _answer_size,
                HoldfastError: _answer_error,
                Exception: _answer_error,
            },
        )

    async def _add_checkpoint(self, request: Request) -> PlainTextResponse:
        submission = await _read_text(request)
        return PlainTextResponse(await asyncio.to_thread(self._witness.add_checkpoint, submission))

    async def _add_certificate(self, request: Request) -> PlainTextResponse:
        await asyncio.to_thread(self._witness.add_certificate, await _read_text(request))
        return PlainTextResponse("")


async def _read_text(request: Request) -> str:
    try:
        return (await read_body(request, LARGEST_SUBMISSION)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not UTF-8 text") from error


async def _answer_size(request: Request, error: Exception) -> Response:
    size = error.size if isinstance(error, OldSizeDiffers) else 0
    # Response would add a charset to a text type, and clients compare the whole of it.
    return Response(f"{size}\n", 409, headers={"Content-Type": SIZE_TYPE})


async def _answer_error(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, HoldfastError) else Internal("the witness failed; see its log")
    return PlainTextResponse(f"{refusal}\n", refusal.code)
