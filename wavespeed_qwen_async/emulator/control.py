"""The emulator's own paths, for whoever drives it from another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .origin import Origin, read_json, success
from .service import RefusalError

if TYPE_CHECKING:
    from aiohttp import web

    from .faults import Plan


class Control:
    """Answers `/__emulator__/ledger` and `/__emulator__/faults`; needs no key."""

    def __init__(self, origin: Origin) -> None:
        self._service = origin.service

    async def answer(self, request: web.BaseRequest, path: str, _plan: Plan) -> bytes:
        """Answer a control request."""
        if path == "ledger" and request.method == "GET":
            return success(self._service.ledger.as_dict())
        if path == "faults":
            if request.method == "POST":
                self._add(await read_json(request))
            elif request.method == "DELETE":
                self._service.faults.clear()
            return success({"rules": self._rules()})
        raise RefusalError(404, "no such control path: there are ledger and faults")

    def _add(self, body: dict[str, Any]) -> None:
        rules = body.get("rules", [body])
        try:
            for rule in rules:
                self._service.faults.add(**rule)
        except (TypeError, ValueError) as error:
            raise RefusalError(400, str(error)) from error

    def _rules(self) -> list[dict[str, Any]]:
        return [
            {
                "where": sorted(rule.where),
                "what": rule.action.name,
                "options": dict(rule.action.options),
                "seen": rule.seen,
                "fired": rule.fired,
            }
            for rule in self._service.faults.rules
        ]
