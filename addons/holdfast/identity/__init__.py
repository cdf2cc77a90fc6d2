"""Who asks: a bearer token becomes an Identity, or a refusal with a reason code.

Reading order:

    serialization  one spelling of base64url and JSON
    engine         what the signature engine lacks: RSA-PSS and Ed25519
    keys           a JWKS document becomes prebuilt public keys, by key ID and algorithm
    expressions    CEL over the claims of a token, or over a user
    mapping        how claims become a user, by the rules of their issuer
    token          the strict wrapper around the signature engine: parse, verify
    discovery      where the JWKS document comes from: OIDC discovery or a file
    key_source     when it is read again, and how long it is trusted while the issuer is down
    denylist       who is let in no more, though a token of theirs is good
    revoking       when the denylist is read again
    store          revocations and used assertions in the database
    own_tokens     short tokens that Holdfast signs itself, and what they say
    token_keys     the folder of the keys that sign them
    sealing        what a browser carries for us between two requests
    authenticator  what the gateway calls: every issuer, and the cache of verified tokens
    saml           assertions of SAML providers, which are exchanged and not presented: a package
    opening        the authenticator, as the settings say
    dev_issuer     an issuer for the demo and the tests, which signs for anyone

`serialization` to `token`, `denylist` and `sealing` are pure; time is an argument.
"""
