"""The commands of ``tlake``, one module each."""
