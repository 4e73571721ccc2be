// @opensearch-project/opensearch
import opensearch from '@opensearch-project/opensearch'

import { ENGINE_URL, PROXY_URL, run } from './harness.mjs'
import { scenariosOf } from './scenarios.mjs'

const open = (node, options) => new opensearch.Client({ node, ...options })
const spelled = ({ index, ...body }) => ({ ...(index && { index }), body })

const api = {
  COMPRESSED: { compression: 'gzip', suggestCompression: true },
  open,
  sides: () => ({
    straight: open(ENGINE_URL, {}),
    through: open(PROXY_URL, {}),
    urls: { straight: ENGINE_URL, through: PROXY_URL },
  }),
  info: (client) => client.info(),
  create: (client, params) => client.indices.create(spelled(params)),
  mapping: (client, params) => client.indices.getMapping(params),
  exists: (client, params) => client.indices.exists(params),
  remove: (client, params) => client.indices.delete(params),
  count: (client, params) => client.count(params),
  get: (client, params) => client.get(params),
  search: (client, params) => client.search(spelled(params)),
  msearch: (client, body) => client.msearch({ body }),
  documents: (client, params) => client.helpers.search(spelled(params)),
  scroll: (client, params) => client.helpers.scrollDocuments(spelled(params)),
  bulk: (client, index, documents) =>
    client.helpers.bulk({
      datasource: documents,
      onDocument: ({ number }) => ({ index: { _index: index, _id: String(number) } }),
      flushBytes: 4096,
      refreshOnCompletion: index,
    }),
  async msearchHelper(client, searches) {
    const helper = client.helpers.msearch({ operations: 5, retries: 0 })
    const settled = await Promise.allSettled(searches.map(([header, body]) => helper.search(header, body)))
    helper.stop()
    return settled.map(({ value, reason }) => value?.documents ?? { status: reason.statusCode, body: reason.meta.body.responses ?? reason.meta.body })
  },
  openPit: async (client, index) => (await client.createPit({ index, keep_alive: '1m' })).body.pit_id,
  closePit: (client, id) => client.deletePit({ body: { pit_id: [id] } }),
  onRequest: (client, seen) => client.on('request', seen),
  addresses: (client) => client.connectionPool.connections.map(({ url }) => url.href),
}

await run(scenariosOf(api))
