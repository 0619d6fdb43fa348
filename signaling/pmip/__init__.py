"""Proxy Mobile IPv6: one anchor (LMA) for a domain, and gateways (MAG) that register nodes over several paths."""
