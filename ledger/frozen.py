"""What the request path hands on from step to step: immutable, made quickly, and nothing that the collector follows."""

import msgspec


class Frozen(msgspec.Struct, frozen=True, gc=False):
    """A struct of which a request makes a dozen. It must never be part of a cycle: the collector does not look at it.

    `frozen` and `gc` are inherited; the type checker wants to be told `frozen` again.
    """
