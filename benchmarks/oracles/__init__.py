"""Exact values and predictions that runs and bounds are compared with."""
