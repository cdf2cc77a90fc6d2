"""How people get a token: a login in the browser or with a code, kept and renewed for kubectl.

Reading order:

    request          which tokens are asked for
    cache            where tokens are kept between commands
    plain_json       JSON without the json package, for these and the next two
    exec_credential  what kubectl and its plugins say to each other
    cached           `holdfast get-token` when a token is at hand: these five import the standard library only
    provider         the OpenID provider: its metadata, its token endpoint, its keys
    authorization    the authorization code flow with PKCE: what goes out, what may come back
    browser          the browser of the person at this machine, if there is one
    callback         the loopback address that the browser comes back to
    device           the device flow, for a machine without a browser
    tokens           what a provider's answer must be like to be kept
    session          logging in, renewing, and who may do it when
"""
