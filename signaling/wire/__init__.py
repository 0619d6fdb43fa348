"""Octets at the door, objects inside: messages of the Mobility Header and of neighbor discovery.

The doors are `mobility_header`, `neighbor` and `ipv6`: decode() is the only way in and raises nothing but
MalformedMessage, whatever the octets.
"""
