"""Asyncio client for the Qwen-Image LoRA models of WaveSpeedAI: generate and edit one image or a million.

Start at :class:`QwenImageSession`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from ._answers import Price
    from ._retry import Retry
    from ._transport import Timeout
    from .bulk import Batch
    from .errors import (
        AuthenticationError,
        BadRequestError,
        BudgetError,
        ConfigurationError,
        ContentFlaggedError,
        ContentModerated,
        DownloadError,
        InsufficientCreditsError,
        InvalidJobError,
        InvalidParameter,
        InvalidResponseError,
        LimitsBrokenError,
        LostAnswerError,
        MediaError,
        MediaUnreachable,
        MissingParameter,
        NotFoundError,
        NotSentError,
        PayloadTooLargeError,
        PermissionDeniedError,
        PredictionCancelled,
        PredictionError,
        PredictionFailed,
        RateLimitError,
        RequestError,
        ResultTimeout,
        ResultUnavailable,
        ServerError,
        SessionClosedError,
        SubmissionUnknown,
        TaskFailed,
        TaskInternalError,
        TaskTimeout,
        TaskUnavailable,
        UploadError,
        WaveSpeedError,
    )
    from .limits import AccountTier, Limits
    from .models import Edit, Job, LargeSizeWarning, Lora, Size, TextToImage
    from .predictions import Outcome, Output, Prediction
    from .session import QwenImageSession

__all__ = [
    "AccountTier",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "BudgetError",
    "ConfigurationError",
    "ContentFlaggedError",
    "ContentModerated",
    "DownloadError",
    "Edit",
    "InsufficientCreditsError",
    "InvalidJobError",
    "InvalidParameter",
    "InvalidResponseError",
    "Job",
    "LargeSizeWarning",
    "Limits",
    "LimitsBrokenError",
    "Lora",
    "LostAnswerError",
    "MediaError",
    "MediaUnreachable",
    "MissingParameter",
    "NotFoundError",
    "NotSentError",
    "Outcome",
    "Output",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Prediction",
    "PredictionCancelled",
    "PredictionError",
    "PredictionFailed",
    "Price",
    "QwenImageSession",
    "RateLimitError",
    "RequestError",
    "ResultTimeout",
    "ResultUnavailable",
    "Retry",
    "ServerError",
    "SessionClosedError",
    "Size",
    "SubmissionUnknown",
    "TaskFailed",
    "TaskInternalError",
    "TaskTimeout",
    "TaskUnavailable",
    "TextToImage",
    "Timeout",
    "UploadError",
    "WaveSpeedError",
    "__version__",
]

# Where the names are that are imported when they are first asked for: the command line's --help and the emulator need
# neither aiohttp's client nor pydantic. All others are errors.
_HOMES = {
    "AccountTier": ".limits",
    "Batch": ".bulk",
    "Edit": ".models",
    "Job": ".models",
    "LargeSizeWarning": ".models",
    "Limits": ".limits",
    "Lora": ".models",
    "Outcome": ".predictions",
    "Output": ".predictions",
    "Prediction": ".predictions",
    "Price": "._answers",
    "QwenImageSession": ".session",
    "Retry": "._retry",
    "Size": ".models",
    "TextToImage": ".models",
    "Timeout": "._transport",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
