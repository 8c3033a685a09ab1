"""The notifier: an alarm or a failed run in, one message that a person can act on out."""
