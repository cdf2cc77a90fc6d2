"""What must not be seen, or not be kept: two views of one body, for the caller and for the store.

path         the JSONPath that masks are written in
states       paths compiled to one state machine
plan         masks compiled once for a policy: states for fields, RE2 for text
fingerprint  the mask, and what its fingerprint is bound to
spans        where values stand in JSON
body         JSON bodies: objects, lists, Tables, patches
json_patch   patch operations that get around masks
stream       watch streams, by event
text         logs, by line
sentinel     a mask that a caller writes back
"""
