"""SAML 2.0: an assertion of an identity provider becomes an Identity, once.

Reading order:

    document   bytes become a tree that can be read in one way only
    signature  the strict wrapper around signxml: an element becomes what was signed of it
    assertion  what a signed assertion says, to us, now
    response   what the endpoints call: a posted response, or an assertion of RFC 7522, is verified
    mapping    how a verified assertion becomes a user, by the rules of its provider
    replay     what must remember the assertions that were used
    request    how a login is asked for: an AuthnRequest as an address or a form
    metadata   what the provider must know of the gateway

All are pure; time is an argument. Verifying is blocking arithmetic: call it in a thread.
"""
