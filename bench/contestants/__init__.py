"""One adapter a contestant: how to start it beside the others, how a caller reaches it, and which processes it is."""
