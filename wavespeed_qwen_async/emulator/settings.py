"""Every option of the emulator, in one place."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass fields are read at runtime
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from .faults import Faults
from .limits import TIERS, Tier
from .tasks import WEEK


def is_loopback(host: str | None) -> bool:
    """Tell whether a host name or address can only be this machine."""
    if host is None:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """What an emulator is like.

    Attributes:
        host: address to listen on; anything but loopback needs `allow_remote`.
        port: port of the API, 0 for a free one.
        cdn_port: port of the second origin, which takes uploads and serves files; 0 for a free one.
        prefix: path in front of `/api/v3`, as a proxy has it.
        api_key: the only key that works; None lets any non-empty one in.
        tier: the account's limits; None for no limits.
        max_per_minute: accepted submits in any `window`, in place of the tier's.
        max_in_flight: tasks that run at once, in place of the tier's; more wait as `created`.
        window: length of the rate window in seconds.
        count_refused: whether submits refused with 429 count against the window as well.
        retry_after: form of `Retry-After` on a 429; None leaves it out.
        inference: shortest and longest inference time of a task in seconds.
        speed: divides inference times and the sync timeout, not the rate window.
        sync_timeout: how long sync mode holds a request, in seconds before `speed`.
        sync_ending: how sync mode ends without a result: HTTP 504, or HTTP 200 with code 5004.
        blank: serve plain images, which cost nothing and need no Pillow.
        balance: dollars on the account at the start.
        price: dollars for one task.
        prices: dollars for one task of some models, in place of `price`.
        refund_delay: seconds from the end of a failed task to its refund.
        unknown_fields: refuse a body with unknown fields, or drop them silently.
        base64_prefix: whether base64 outputs are data URIs or bare text.
        inputs_key: name under which list items and webhooks carry what was sent.
        list_inputs: whether list items carry inputs always, or only for `include_inputs: true`.
        result_inputs: whether single results carry the inputs, too.
        optional_fields: whether predictions carry the fields that may be absent: `has_nsfw_contents` and `code`.
        retention: seconds that predictions, uploads and outputs are kept.
        webhook_secret: what `webhook/secret` tells.
        webhook_attempts: how often a delivery is tried until it is answered with 2xx.
        allow_remote: permit a host that is not loopback, and webhooks that leave this machine.
        clock_skew: seconds that the server's clock is ahead.
        seed: seed of everything that is drawn.
        faults: what goes wrong; nothing by default.
    """

    host: str = "127.0.0.1"
    port: int = 0
    cdn_port: int = 0
    prefix: str = ""
    api_key: str | None = None
    tier: Tier | None = "ultra"
    max_per_minute: int | None = None
    max_in_flight: int | None = None
    window: float = 60.0
    count_refused: bool = False
    retry_after: Literal["seconds", "date"] | None = "seconds"
    inference: tuple[float, float] = (6.0, 12.0)
    speed: float = 1.0
    sync_timeout: float = 120.0
    sync_ending: Literal["504", "5004"] = "5004"
    blank: bool = False
    balance: float = 1000.0
    price: float = 0.025
    prices: Mapping[str, float] = field(default_factory=dict)
    refund_delay: float = 0.0
    unknown_fields: Literal["refuse", "drop"] = "refuse"
    base64_prefix: bool = True
    inputs_key: Literal["inputs", "input"] = "inputs"
    list_inputs: Literal["always", "asked"] = "always"
    result_inputs: bool = False
    optional_fields: bool = True
    retention: float = WEEK
    webhook_secret: str = "whsec_emulatorsecretforlocaltestsonly"  # noqa: S105 - a made-up one
    webhook_attempts: int = 3
    allow_remote: bool = False
    clock_skew: float = 0.0
    seed: int = 0
    faults: Faults = field(default_factory=Faults)

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            ValueError: with the option at fault.
        """
        if self.faults is None:  # for callers that pass on an option they were not given
            self.faults = Faults(self.seed)
        if not self.allow_remote and not is_loopback(self.host):
            raise ValueError(f"host {self.host!r} is not loopback: pass allow_remote=True to let others in")
        if self.tier is not None and self.tier not in TIERS:
            raise ValueError(f"tier must be one of {', '.join(TIERS)} or None, not {self.tier!r}")
        low, high = self.inference
        if not 0.0 <= low <= high:
            raise ValueError(f"inference must be (shortest, longest) in seconds, not {self.inference!r}")
        for name in ("speed", "window"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)!r}")
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise ValueError(f"prefix must start with a slash and not end with one, not {self.prefix!r}")

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """Submits a window and tasks at once; None is unlimited."""
        rate, running = TIERS[self.tier] if self.tier is not None else (None, None)
        return (
            self.max_per_minute if self.max_per_minute is not None else rate,
            self.max_in_flight if self.max_in_flight is not None else running,
        )
