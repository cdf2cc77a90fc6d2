"""Servers that tests talk to, started on loopback from what the machine or the package registries have.

postgres   a PostgreSQL server, its crashes and its replicas
"""
