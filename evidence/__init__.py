"""STAGE's claims re-tested with the shipped models and with small ones: `python -m evidence`."""
