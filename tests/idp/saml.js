// A SAML 2.0 provider for the tests: samlp on express, over HTTPS on loopback. Whoever comes is alice.
//
// node saml.js CERTIFICATE KEY SIGNING-CERTIFICATE SIGNING-KEY ACS-URL AUDIENCE. Prints `ready URL`. What is signed,
// /sso?sign= says: assertion (as when absent) or response.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

import express from 'express';
import samlp from 'samlp';

const HOST = '127.0.0.1';
const [certificate, key, signingCertificate, signingKey] = process.argv.slice(2, 6).map((file) => readFileSync(file));
const [acs, audience] = process.argv.slice(6);

function AliceMapper() {
  this.getClaims = () => ({ groups: ['platform', 'sre'] });
  this.getNameIdentifier = () => ({ nameIdentifier: 'alice@example.com' });
}

const app = express();
app.get('/sso', (request, response, next) => {
  samlp.auth({
    issuer: 'https://saml.test/metadata',
    cert: signingCertificate,
    key: signingKey,
    audience,
    recipient: acs,
    destination: acs,
    lifetimeInSeconds: 300,
    signatureAlgorithm: 'rsa-sha256',
    digestAlgorithm: 'sha256',
    signResponse: request.query.sign === 'response',
    profileMapper: () => new AliceMapper(),
    getUserFromRequest: () => ({ id: 'alice@example.com' }),
    getPostURL: (realm, reply, asked, answer) => answer(null, acs),
  })(request, response, next);
});

const server = createServer({ cert: certificate, key }, app);
server.listen(0, HOST, () => console.log(`ready https://${HOST}:${server.address().port}`));
