"""The path KL of samplers, certificates, and bounds."""
