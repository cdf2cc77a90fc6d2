"""A real Kubernetes API server on loopback, for the tests and the demo.

The same idea as controller-runtime's envtest: etcd and kube-apiserver as plain processes, no container runtime.
Added are kube-controller-manager and a node that serves logs, exec, attach and port-forward (`../node`).

    progress     long steps say how long they have taken
    building     the binaries: from KUBEBUILDER_ASSETS, from the cache, or built with Go
    credentials  keys, certificates and kubeconfigs of one cluster
    processes    child processes that end with us, whatever happens to us
    cluster      Cluster: start, use, stop
    registry     clusters by name, for `scripts/testcluster`
    __main__     that command
"""

from testcluster.building import Assets, find_assets
from testcluster.cluster import Cluster
from testcluster.errors import ClusterError, GoMissing
from testcluster.progress import Progress

__all__ = ["Assets", "Cluster", "ClusterError", "GoMissing", "Progress", "find_assets"]
