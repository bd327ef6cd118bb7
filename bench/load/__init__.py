"""Load: wrk for saturation, a fixed schedule for latency under a given rate, and many streams at once."""
