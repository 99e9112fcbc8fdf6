"""Metrics of decoded pictures, comparison with other codecs, reports."""
