// @elastic/elasticsearch; which of its versions, the argument says: node elasticsearch.mjs elasticsearch8
import { ENGINE_URL, PROXY_URL, run } from './harness.mjs'
import { scenariosOf } from './scenarios.mjs'

const module = await import(process.argv[2])
const { Client } = module.default ?? module // 8 is CommonJS
const META = { meta: true }
const open = (node, options) => new Client({ node, ...options })

const api = {
  COMPRESSED: { compression: true },
  open,
  sides: () => ({
    straight: open(ENGINE_URL, {}),
    through: open(PROXY_URL, {}),
    urls: { straight: ENGINE_URL, through: PROXY_URL },
  }),
  info: (client) => client.info({}, META),
  create: (client, params) => client.indices.create(params, META),
  mapping: (client, params) => client.indices.getMapping(params, META),
  exists: (client, params) => client.indices.exists(params, META),
  remove: (client, params) => client.indices.delete(params, META),
  count: (client, params) => client.count(params, META),
  get: (client, params) => client.get(params, META),
  search: (client, params) => client.search(params, META),
  msearch: (client, searches) => client.msearch({ searches }, META),
  documents: (client, params) => client.helpers.search(params),
  scroll: (client, params) => client.helpers.scrollDocuments(params),
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
  openPit: async (client, index) => (await client.openPointInTime({ index, keep_alive: '1m' })).id,
  closePit: (client, id) => client.closePointInTime({ id }),
  onRequest: (client, seen) => client.diagnostic.on('request', seen),
  addresses: (client) => client.connectionPool.connections.map(({ url }) => url.href),
}

await run(scenariosOf(api))
