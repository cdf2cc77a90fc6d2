"""The record, read back: never on the path of a request.

story   what a call was, from its records: one line, or all of it
"""
