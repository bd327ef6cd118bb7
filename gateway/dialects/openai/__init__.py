"""OpenAI's wire format, which xAI and every compatible server speak too (wire.md sections 1 and 4)."""
