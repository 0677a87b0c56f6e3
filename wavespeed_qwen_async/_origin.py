"""Where the API is and what its key may be, checked before anything is sent."""

from __future__ import annotations

from yarl import URL

from .errors import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "checked_base_url", "checked_key"]

DEFAULT_BASE_URL = "https://api.wavespeed.ai"


def checked_key(api_key: str) -> str:
    key = api_key.strip()
    if not key:
        raise ConfigurationError(
            "no API key: set WAVESPEED_API_KEY or pass api_key= (keys: https://wavespeed.ai/accesskey)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key holds white space or characters that no key has: copy it again")
    return key


def checked_base_url(text: str) -> URL:
    try:
        url = URL(text.strip().rstrip("/"))
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment or url.user:
        raise ConfigurationError(
            f"base_url = {text if '@' not in text else '***'!r}: give an http(s) URL without query, "
            f"such as {DEFAULT_BASE_URL}"
        )
    if url.path.rstrip("/").endswith("/api/v3"):
        raise ConfigurationError(f"base_url = {text!r}: leave '/api/v3' out, it is added")
    return url
