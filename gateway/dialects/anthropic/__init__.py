"""Anthropic's wire format (wire.md section 2)."""
