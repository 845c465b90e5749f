"""Hosts as network namespaces on one machine, each with its own `ldmd`: to try things out, and to test them."""
