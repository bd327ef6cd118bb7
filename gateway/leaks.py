"""What a provider's error text may say about the operator, taken out before a caller reads it (wire.md section 6).

Providers quote the organization, the project and a masked key in their messages: "Rate limit reached for gpt-x in
organization org-abc". None of that is the caller's business. Only error bodies are changed; answers pass as they are.
"""

import re

# An id has a capital, a digit or a mask in it somewhere; plain words such as user-friendly have not.
_NAMES = re.compile(
    rb"\b(org-|proj_|user-|acct_|wrkspc_|projects/|sk-|xai-|AIza)(?=[a-z_.-]*[A-Z0-9*])[A-Za-z0-9*_-]{4,}", re.ASCII
)


def without_secrets(text: bytes) -> bytes:
    """The same text with every key and every name of an organization, a project or a user masked."""
    return _NAMES.sub(rb"\1***", text)
