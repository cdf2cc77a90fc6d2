"""What our own HTTP clients have in common."""

NEARBY = {"all://127.0.0.1": None, "all://[::1]": None, "all://localhost": None}
"""`mounts` of an httpx client: what is on this machine is never behind the proxy that the environment may name.

That is Go's rule too (https://pkg.go.dev/net/http#ProxyFromEnvironment).
"""
