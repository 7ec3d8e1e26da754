"""Tests of tinynet.datasets and tinynet.files.atomic."""
