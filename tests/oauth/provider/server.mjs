// A certified authorization server on loopback, for tests.
//
// Rules of this file:
// - The first line of standard input is the setup, as JSON; the end of standard input ends the server, so that it never
//   outlives the test that started it.
// - The first line of standard output is {"issuer": ...}, once it answers.
// - What a client may rely on is switched on: PKCE for all, resource indicators with JWT access tokens, `iss` in answers,
//   rotation of refresh tokens.
//
// The setup:
//   clients      registered clients (RFC 7591 metadata with client_id)
//   resources    from the identifier of a resource to its scopes, with spaces between them
//   opaque       identifiers of resources whose tokens say nothing to anybody else; others get JWTs
//   scopes       further scopes that clients may register for; those of resources need not be among them
//   documents    from the URL of a client id metadata document to the document: they are not fetched from anywhere else
//   dpopNonces   whether DPoP proofs need a nonce
//   registration whether clients may register themselves
//   offline      whether a refresh token needs the scope offline_access
//   tokenSeconds how long an access token is good
//
// Standard error has a line for each error that was answered, and for each grant: "grant.success", its type, the client.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import Provider, { errors } from 'oidc-provider';

const lines = createInterface({ input: process.stdin });
const setup = await new Promise((resolve) => lines.once('line', (line) => resolve(JSON.parse(line))));
lines.once('close', () => process.exit(0));

const resources = new Map(Object.entries(setup.resources));
const opaque = new Set(setup.opaque);
const documents = new Map(Object.entries(setup.documents));

function key(type, options, algorithm) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), alg: algorithm, use: 'sig', kid: algorithm };
}

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: setup.clients,
  jwks: { keys: [key('ec', { namedCurve: 'P-256' }, 'ES256'), key('rsa', { modulusLength: 2048 }, 'RS256')] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  scopes: ['openid', 'offline_access', ...setup.scopes],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  issueRefreshToken: (_, client, source) =>
    client.grantTypeAllowed('refresh_token') && (!setup.offline || source.scopes.has('offline_access')),
  expiresWithSession: () => false,
  ttl: {
    AccessToken: setup.tokenSeconds,
    AuthorizationCode: 60,
    ClientCredentials: setup.tokenSeconds,
    Grant: 3600,
    IdToken: 300,
    Interaction: 300,
    RefreshToken: 3600,
    Session: 3600,
  },
  fetch: (url, options) => {
    const document = documents.get(String(url));
    if (document === undefined) throw new Error(`nothing is fetched from ${url}`);
    return new Response(JSON.stringify(document), { headers: { 'content-type': 'application/json' } });
  },
  features: {
    devInteractions: { enabled: true },
    userinfo: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    registration: { enabled: setup.registration },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => setup.dpopNonces },
    clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => {
        if (!resources.has(resource)) throw new errors.InvalidTarget();
        return {
          scope: resources.get(resource),
          audience: resource,
          accessTokenFormat: opaque.has(resource) ? 'opaque' : 'jwt',
          accessTokenTTL: setup.tokenSeconds,
          jwt: { sign: { alg: 'ES256' } },
        };
      },
    },
  },
});

for (const event of ['server_error', 'authorization.error', 'grant.error', 'registration_create.error']) {
  provider.on(event, (_, error) => console.error(event, error?.error, error?.error_detail ?? error?.error_description));
}
provider.on('grant.success', ({ oidc }) => console.error('grant.success', oidc.params.grant_type, oidc.client.clientId));
server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));
