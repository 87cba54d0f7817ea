"""Which addresses DTLS goes to."""

from __future__ import annotations

DTLS_SCHEMES = ("dtls",)
"""Schemes of `Address` that `listen` listens at and `connect` connects to."""
