"""The request path: admitted, held, forwarded as it is, measured, charged."""
