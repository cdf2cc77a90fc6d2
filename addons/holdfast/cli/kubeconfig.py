"""`holdfast kubeconfig`: what a caller needs to reach the cluster through the gateway."""

from __future__ import annotations

import base64
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from holdfast.cli.options import ConfigFile, read_settings
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.settings import Settings

_EVERY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104  recognised, not listened on


def kubeconfig(
    user_name: Annotated[str, typer.Option("--user-name", help="Name of the user entry; the token says who it is.")],
    token_file: Annotated[
        Path, typer.Option("--token-file", metavar="FILE", help="The caller's token; kubectl reads it again and again.")
    ],
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="How the caller reaches the gateway; from `listen` when absent.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Write it here (0600) instead of printing it.")
    ] = None,
    embed_token: Annotated[
        bool, typer.Option("--embed-token", help="Copy the token itself into the kubeconfig; it will not be renewed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE when it exists.")] = False,
    config: ConfigFile = None,
) -> None:
    """Write a kubeconfig that goes through the gateway, with the gateway's CA in it.

    \b
    Example:
      holdfast kubeconfig --user-name agent --token-file agent.token -f agent.kubeconfig
      kubectl --kubeconfig agent.kubeconfig get pods
    """
    settings = read_settings(config)
    from holdfast.hooks.listener import listener_certificates

    document = build_kubeconfig(
        cluster=settings.cluster,
        server=_require_https(server or default_server(settings)),
        authority_pem=listener_certificates(settings).authority_pem,
        user_name=user_name,
        user=_describe_user(token_file.absolute(), embed_token),
    )
    _write(document, file, force)


def build_kubeconfig(
    *, cluster: str, server: str, authority_pem: bytes, user_name: str, user: dict[str, str]
) -> dict[str, Any]:
    """Return a kubeconfig (client-go `tools/clientcmd/api/v1/types.go`) with one cluster, user and context."""
    context = f"{user_name}@{cluster}"
    authority = base64.b64encode(authority_pem).decode("ascii")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user_name, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user_name}}],
        "current-context": context,
    }


def default_server(settings: Settings) -> str:
    """The gateway's URL as `listen` tells it. Raises ConfigurationError when the port is only known at run time."""
    listen = settings.listen
    if listen.port == 0:
        raise ConfigurationError("listen.port is 0, so the port is not known here; give --server https://HOST:PORT.")
    host = listen.hosts[0] if listen.host in _EVERY_ADDRESS and listen.hosts else listen.host
    return f"https://{f'[{host}]' if ':' in host else host}:{listen.port}"


def _require_https(server: str) -> str:
    url = urlsplit(server)
    if url.scheme != "https" or not url.hostname or url.path.strip("/") or url.query:
        raise ConfigurationError(f"--server: found {server!r}; expected https://HOST:PORT.")
    return server.rstrip("/")


def _describe_user(token_file: Path, embed: bool) -> dict[str, str]:
    """The user entry; the token is read in either case, so that a wrong file is noticed here."""
    from holdfast.credential.sources import read_token

    token = read_token(token_file)
    return {"token": token} if embed else {"tokenFile": str(token_file)}


def _write(document: dict[str, Any], file: Path | None, force: bool) -> None:
    from holdfast.certificates import write_private
    from holdfast.cli.output import render_yaml

    text = render_yaml(document)
    if file is None:
        typer.echo(text)
        return
    if file.exists() and not force:
        raise ConfigurationError(f"{file}: exists already; give another FILE, or --force to replace it.")
    write_private(file, text.encode() + b"\n")
    typer.echo(f"written: {file}", err=True)
