// An OpenID provider for the tests: oidc-provider (certified by the OpenID Foundation) over HTTPS on loopback.
//
// Its people and programs are made up here; what a test may turn is under /test: how many seconds tokens live, which keys sign,
// what the next answers of an endpoint are, and how often tokens were given. Everything else is the real provider.
//
// node server.js CERTIFICATE KEY, with the secret of the client `ci` in $CLIENT_SECRET. Prints `ready URL`.

import { randomUUID, webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

import { Provider } from 'oidc-provider';

const HOST = '127.0.0.1';
const GROUPS = { alice: ['platform', 'sre'], bob: ['agents'], ci: ['jobs'] };

const [certificate, key] = process.argv.slice(2).map((file) => readFileSync(file));

const settings = { idToken: 600, accessToken: 600, deviceCode: 600, refreshTokens: true };
let given = {};
let nextAnswers = [];
let handle;

async function makeKey() {
  const algorithm = { name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' };
  const { privateKey } = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const { kty, n, e, d, p, q, dp, dq, qi } = await webcrypto.subtle.exportKey('jwk', privateKey);
  return { kty, n, e, d, p, q, dp, dq, qi, kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

function configure(keys) {
  return {
    jwks: { keys },
    cookies: { keys: [randomUUID()] },
    clients: [
      {
        client_id: 'kubectl',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
        redirect_uris: [`http://${HOST}/callback`],
      },
      {
        client_id: 'ci',
        client_secret: process.env.CLIENT_SECRET,
        token_endpoint_auth_method: 'client_secret_basic',
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
      },
    ],
    scopes: ['openid', 'offline_access', 'groups'],
    claims: { openid: ['sub'], groups: ['groups'] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => (id in GROUPS ? { accountId: id, claims: () => ({ sub: id, groups: GROUPS[id] }) } : undefined),
    extraTokenClaims: (_, token) => ({ groups: GROUPS[token.accountId ?? token.clientId] }),
    issueRefreshToken: (_, client, source) =>
      settings.refreshTokens && client.grantTypeAllowed('refresh_token') && source.scopes.has('offline_access'),
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, audience) => ({
          scope: '', audience, accessTokenFormat: 'jwt', accessTokenTTL: settings.accessToken, jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    ttl: {
      IdToken: () => settings.idToken,
      AccessToken: () => settings.accessToken,
      DeviceCode: () => settings.deviceCode,
      RefreshToken: 3600,
      ClientCredentials: () => settings.accessToken,
      Grant: 3600,
      Interaction: 600,
      Session: 3600,
    },
  };
}

function startProvider(issuer, keys) {
  const provider = new Provider(issuer, configure(keys));
  const count = (ctx, outcome) => {
    const name = `${ctx.oidc.params?.grant_type} ${outcome}`;
    given[name] = (given[name] ?? 0) + 1;
  };
  provider.on('grant.success', (ctx) => count(ctx, 'given'));
  provider.on('grant.error', (ctx, error) => count(ctx, error.error));
  provider.on('server_error', (_, error) => console.error(error));
  handle = provider.callback();
}

async function readJson(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString() || '{}');
}

function send(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
}

let keys = [await makeKey()];

const controls = {
  '/test/settings': (wanted) => Object.assign(settings, wanted),
  '/test/answers': ({ answers }) => { nextAnswers = answers; return {}; },
  '/test/given': () => { const counted = given; given = {}; return counted; },
  // The old key is gone at once: a provider whose key was stolen does the same.
  '/test/rotate': async () => { keys = [await makeKey()]; startProvider(issuer, keys); return { kid: keys[0].kid }; },
};

const server = createServer({ cert: certificate, key }, async (request, response) => {
  const path = request.url.split('?')[0];
  if (path in controls) {
    send(response, 200, await controls[path](await readJson(request)));
    return;
  }
  const place = nextAnswers.findIndex((answer) => answer.path === path);
  if (place >= 0) {
    const [{ status, body, headers }] = nextAnswers.splice(place, 1);
    request.resume();
    send(response, status, body, headers);
    return;
  }
  handle(request, response);
});

let issuer;
server.listen(0, HOST, () => {
  issuer = `https://${HOST}:${server.address().port}`;
  startProvider(issuer, keys);
  console.log(`ready ${issuer}`);
});
