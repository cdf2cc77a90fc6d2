"""Servers that tests talk to, started on loopback from what the machine or the package registries have.

postgres    a PostgreSQL server, its crashes and its replicas
s3          an S3 server with object lock
versitygw   its program, built once with Go as the test cluster's are
identity_provider  an OpenID provider, and the browser of its people
saml_provider      a SAML provider, and the browser of alice
node_server        what the two have in common
npm         what Node programs need, installed once
small_disk  a file system that a test fills
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cluster"))  # for testcluster: child processes, and where Go is
