"""Tests of the clinic and of its proof."""
