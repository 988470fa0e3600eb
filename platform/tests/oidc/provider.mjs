// A provider of OpenID Connect for the tests: oidc-provider, which is certified, on 127.0.0.1 and a free port, with
// everything in memory. It prints its issuer when it accepts connections. See scripts/service-oidc.
//
// It has no pages: who comes to its log-in is logged in at once. Tests add to the URL of the log-in who that is
// (`?as=ADDRESS`; an address that begins with `unproved` is not verified), or `?refuse`.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

// Whoever reads what it prints gets the issuer and nothing else: the provider has notices.
console.info = console.warn = console.error;

const ADA = 'ada@shop.example';
// The issuer has a path, as those of Keycloak do.
const PATH = '/realms/shop';
const redirectUris = (process.env.REDIRECT_URIS ?? '').split(' ').filter(Boolean);

const jwk = (type, options, rest) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  ...rest,
});

const configuration = {
  clients: [
    {
      client_id: 'shop',
      // What RFC 6749 (section 2.3.1) has encoded.
      client_secret: 'a secret:100% & more+',
      redirect_uris: redirectUris,
      response_types: ['code'],
      grant_types: ['authorization_code', 'client_credentials'],
    },
  ],
  // The one for signatures has others beside it.
  jwks: {
    keys: [
      jwk('rsa', { modulusLength: 2048 }, { kid: 'enc', use: 'enc', alg: 'RSA-OAEP-256' }),
      jwk('rsa', { modulusLength: 2048 }, { kid: 'sig', use: 'sig', alg: 'RS256' }),
      jwk('ec', { namedCurve: 'P-521' }, { kid: 'large', use: 'sig', alg: 'ES512' }),
    ],
  },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  pkce: { required: () => true },
  // In the code flow these are at the endpoint of user information only, as OpenID Connect Core (section 5.4) has it.
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: id, email_verified: !id.startsWith('unproved'), name: id.split('@')[0] }),
  }),
  // Nobody is asked whether the shop may know who they are.
  loadExistingGrant: async (ctx) => {
    const { client, session, provider } = ctx.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  },
  interactions: { url: (_, interaction) => `${PATH}/log-in/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    encryption: { enabled: true },
    clientCredentials: { enabled: true },
    // A program names the API that its token is for (RFC 8707); the token is a JWT (RFC 9068).
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_, audience) => ({ audience, scope: '', accessTokenFormat: 'jwt' }),
    },
  },
};

async function logIn(provider, request, response) {
  const asked = new URL(request.url, 'http://localhost').searchParams;
  const result = asked.has('refuse')
    ? { error: 'access_denied', error_description: 'The user does not want to' }
    : { login: { accountId: asked.get('as') ?? ADA } };
  await provider.interactionFinished(request, response, result);
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}${PATH}`;
  const provider = new Provider(issuer, configuration);
  for (const event of ['server_error', 'authorization.error', 'grant.error', 'userinfo.error']) {
    provider.on(event, (_, error) => console.error(event, error));
  }
  const handle = provider.callback();
  server.on('request', (request, response) => {
    if (request.url.startsWith(`${PATH}/log-in/`)) {
      logIn(provider, request, response).catch((error) => {
        console.error(error);
        response.writeHead(500).end();
      });
      return;
    }
    // What is mounted below a path sees the rest of it, and makes URLs of the whole.
    request.originalUrl = request.url;
    request.url = request.url.replace(PATH, '');
    handle(request, response);
  });
  console.log(issuer);
});
