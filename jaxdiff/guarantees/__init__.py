"""Path KL, certificates and bounds."""
