"""Thin runners: ``python -m experiments.<runner> [key=value …]``."""
