"""Gemini's own wire format (wire.md section 3)."""
