"""Fourth stage: what must not be seen, and what must not be kept.

The request body enters the flow only as its stored view, and a buffered response only as the caller's view
(see `credential.layer`), so that nothing that reads flows ever reads a secret.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.errors import BadGateway, HoldfastError, Invalid
from holdfast.hooks.fail_closed import fail_closed, fail_closed_even_refused
from holdfast.kube.negotiation import is_json, is_json_patch, is_yaml
from holdfast.masking.body import mask_json, mask_json_patch, mask_object
from holdfast.masking.fingerprint import Views
from holdfast.masking.json_patch import find_forbidden_operation
from holdfast.masking.plan import Plan, compile_plan
from holdfast.masking.sentinel import find_mask
from holdfast.masking.text import mask_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy import http

    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway
    from holdfast.masking.body import MaskedBody

LARGE_BODY_BYTES = 128 << 10
"""From here on a body is masked in a thread; below, that costs more than the work itself."""


class Masked:
    """Makes the views of both bodies, and refuses a mask that is written back."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed_even_refused
    async def request_body(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Make the view that is stored and shown; check the body for masks, unless the call is refused anyway."""
        if not exchange.request_body:
            return
        if exchange.decision is None:
            exchange.request_withheld = "the call was refused before policy could say what to mask"
            return
        await self._view_request(exchange)
        if not exchange.is_refused:
            await self._refuse_mask(exchange)
            _refuse_reading_patch(exchange)

    @fail_closed
    async def response_body(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Make both views of a buffered response."""
        response = exchange.response
        plan = plan_of(exchange)
        if not response.body or plan is None:
            response.caller_view = response.store_view = response.body
            return
        masked = await run(_response_masker(exchange, plan), response.body, plan, views_of(self.gateway, exchange))
        response.caller_view, response.store_view = masked.caller, masked.store
        exchange.mask_counts.update(masked.counts)
        if flow.response is not None and "content-length" in flow.response.headers:
            flow.response.headers["content-length"] = str(len(masked.caller))

    async def _view_request(self, exchange: Exchange) -> None:
        plan = plan_of(exchange)
        if plan is None or plan.fields is None:
            exchange.request_view = exchange.request_body
            return
        mask = mask_json_patch if is_json_patch(exchange.content_type) else mask_object
        try:
            masked = await run(mask, exchange.request_body, plan, views_of(self.gateway, exchange))
        except HoldfastError:
            exchange.request_withheld = f"a mask applies and {exchange.content_type or 'the body'} could not be read"
        else:
            exchange.request_view = masked.store

    async def _refuse_mask(self, exchange: Exchange) -> None:
        place = await asyncio.to_thread(find_mask, exchange.request_body)
        if place is not None:
            raise Invalid(
                place,
                "holds a mask (masked:v1:...), not the value that it stands for: writing it would destroy the value. "
                "Leave the field out, or write its true value.",
            )


def plan_of(exchange: Exchange) -> Plan | None:
    """The masks that apply to this call, compiled; None when there are none."""
    if exchange.decision is None or not exchange.decision.masks:
        return None
    return compile_plan(exchange.decision.masks)


def views_of(gateway: Gateway, exchange: Exchange) -> Views:
    """What binds the masks of this call to its caller and its object."""
    info, identity = exchange.info, exchange.identity
    if info is None or identity is None:
        raise BadGateway("a body cannot be masked for a caller who is not known.")
    resource = f"{info.combined_resource}.{info.api_group}" if info.api_group else info.combined_resource
    return Views(gateway.fingerprints, identity.issuer, identity.username, resource, info.namespace, info.name)


async def run(mask: Callable[[bytes, Plan, Views], MaskedBody], body: bytes, plan: Plan, views: Views) -> MaskedBody:
    """Mask here when that is quick, else in a thread."""
    if len(body) < LARGE_BODY_BYTES:
        return mask(body, plan, views)
    return await asyncio.to_thread(mask, body, plan, views)


def _refuse_reading_patch(exchange: Exchange) -> None:
    """A JSON Patch can copy what is masked to where it is not, or test guesses at it (RFC 6902 section 4)."""
    plan = plan_of(exchange)
    if plan is None or not is_json_patch(exchange.content_type):
        return
    why = find_forbidden_operation(exchange.request_body, plan)
    if why is not None:
        raise Invalid("JSON Patch", why)


def is_log(exchange: Exchange) -> bool:
    """Whether the answer is a container's text, which has no fields to look for."""
    info = exchange.info
    return info is not None and info.subresource == "log" and exchange.response.media_type.startswith("text/")


def _response_masker(exchange: Exchange, plan: Plan) -> Callable[[bytes, Plan, Views], MaskedBody]:
    media_type = exchange.response.media_type
    if is_json(media_type):
        return mask_json
    if is_log(exchange) or (plan.fields is None and not is_yaml(media_type)):
        return mask_text
    raise BadGateway(
        f"the API server answered in {media_type or 'an unnamed media type'}, in which what must be masked cannot be "
        "found; the answer was withheld. Ask for application/json."
    )
