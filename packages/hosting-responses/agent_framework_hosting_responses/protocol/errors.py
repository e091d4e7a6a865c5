"""Errors of the protocol, split by whose fault they are.

ProtocolError
├── RequestError        the caller's fault: message, param, code, HTTP status hint
└── EncoderStateError   our bug: always 500

Source: contract §4.8.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of everything the protocol core raises."""


class RequestError(ProtocolError):
    """The request cannot be answered as asked; `status` is the HTTP status that says so."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002  the wire's word
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.type = type


class EncoderStateError(ProtocolError):
    """The encoder was driven outside its grammar."""
