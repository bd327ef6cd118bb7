"""What the contestants forward to: nginx with a fixed answer, and a bare asyncio server that streams."""
