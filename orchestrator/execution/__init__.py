"""Executors: the same trials, inline or under Ray Tune, as a stream of events."""
