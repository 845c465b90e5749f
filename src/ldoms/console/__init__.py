"""Consoles of guests, in the words of vntsd: what was said, who may write, and how a terminal gets there."""
