"""The laws that samplers are run on, and scores with errors of a known size."""
