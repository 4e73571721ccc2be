// The scenarios of both official clients: they differ in how a call is written, which `api` knows.
import {
  AWAY_URL, LAPTOP, PREFIX, PROXY_URL, ROUTED_INDEX, VECTORS,
  alike, assert, checkReranked, connections, documents, ids, refused, steady,
} from './harness.mjs'

const PLAIN = `${PREFIX}-plain`
const MAPPINGS = {
  properties: { number: { type: 'integer' }, title: { type: 'text' }, brand: { type: 'keyword' } },
}
const BRANDS = { brands: { terms: { field: 'brand' } } }
const AT_ONCE = 40

/** `api.open(url, options)` makes a client; every call of `api` takes one and gives {body, statusCode, headers}. */
export function scenariosOf(api) {
  const clients = api.sides()
  const { straight, through } = clients
  const same = (ask) => alike(clients, ask)
  const reply = ({ body, statusCode }) => ({ body: steady(body), statusCode })
  const outcomeOf = ({ headers }) => headers['x-rerank'] ?? ''

  async function sources() {
    const all = await api.search(straight, { index: ROUTED_INDEX, size: 1000, _source: { excludes: VECTORS } })
    return new Map(all.body.hits.hits.map((hit) => [hit._id, hit._source]))
  }

  async function filled(client, index, count) {
    await api.create(client, { index, mappings: MAPPINGS, settings: { number_of_shards: 1 } })
    return api.bulk(client, index, documents(count))
  }

  return {
    'info and product check': same(async (client) => {
      const { body, headers } = await api.info(client)
      return { body, product: headers['x-elastic-product'] ?? null, type: headers['content-type'] }
    }),

    'create an index, ask for it, delete it': same(async (client) => {
      const index = `${PREFIX}-made`
      const created = await api.create(client, { index, mappings: MAPPINGS, settings: { number_of_shards: 1 } })
      const mapping = await api.mapping(client, { index })
      const there = await api.exists(client, { index })
      const deleted = await api.remove(client, { index })
      const gone = await api.exists(client, { index })
      return [created, mapping, there, deleted, gone].map(reply)
    }),

    'bulk helper': same(async (client) => {
      const { time, ...stats } = await filled(client, `${PREFIX}-bulk`, 500)
      const counted = await api.count(client, { index: `${PREFIX}-bulk` })
      await api.remove(client, { index: `${PREFIX}-bulk` })
      return [stats, counted.body]
    }),

    'an index beside the route': async () => {
      await filled(straight, PLAIN, 100)
      const body = { index: PLAIN, query: { match: { title: 'laptop 7' } }, aggs: BRANDS }
      const [one, other] = [await api.search(straight, body), await api.search(through, body)]
      assert.deepEqual(reply(other), reply(one))
      assert.equal(outcomeOf(other), '')
    },

    'a routed search is reranked, its documents the engine\'s': async () => {
      const body = { index: ROUTED_INDEX, query: LAPTOP, size: 50, aggs: { brands: { terms: { field: 'brand.keyword', size: 100 } } } }
      const [one, other] = [await api.search(straight, body), await api.search(through, body)]
      checkReranked(other.body, outcomeOf(other), one.body, await sources())
    },

    'search helper': async () => {
      const body = { index: ROUTED_INDEX, query: LAPTOP, size: 20 }
      const found = await api.documents(through, body)
      const raw = await api.search(through, body)
      assert.deepEqual(found.map(({ _id, ...source }) => source), raw.body.hits.hits.map((hit) => hit._source))
    },

    'msearch: each item its own': async () => {
      const lines = [
        { index: ROUTED_INDEX }, { query: LAPTOP, size: 50 },
        { index: PLAIN }, { query: { match: { title: 'laptop' } } },
        { index: `${PREFIX}-missing` }, { query: { match_all: {} } },
        { index: ROUTED_INDEX }, { query: LAPTOP, size: 0 },
      ]
      const [one, other] = [await api.msearch(straight, lines), await api.msearch(through, lines)]
      const [routed, ...rest] = other.body.responses
      checkReranked(routed, outcomeOf(other), one.body.responses[0], await sources())
      assert.deepEqual(steady(rest), steady(one.body.responses.slice(1)))
    },

    'msearch helper': same(async (client) => {
      const found = await api.msearchHelper(client, [
        [{ index: PLAIN }, { query: { term: { brand: 'acme' } }, sort: 'number' }],
        [{ index: `${PREFIX}-missing` }, { query: { match_all: {} } }],
      ])
      return found.map(steady)
    }),

    'aggregations alone': same(async (client) =>
      reply(await api.search(client, { index: ROUTED_INDEX, size: 0, query: LAPTOP, aggs: { price: { stats: { field: 'price' } } } })),
    ),

    'scroll helper': same(async (client) => {
      const all = []
      for await (const found of api.scroll(client, { index: ROUTED_INDEX, size: 7, query: LAPTOP })) all.push(found)
      assert.ok(all.length > 7)
      return all
    }),

    'search_after with a point in time': same(async (client) => {
      let pit = await api.openPit(client, ROUTED_INDEX)
      const pages = []
      for (let after; pages.length < 20;) {
        const { body } = await api.search(client, {
          pit: { id: pit, keep_alive: '1m' }, size: 10, query: LAPTOP,
          sort: [{ _score: 'desc' }, { sku: 'asc' }], ...(after && { search_after: after }),
        })
        if (!body.hits.hits.length) break
        pages.push(body.hits.hits.map(({ _id, _score, _source }) => ({ _id, _score, _source })))
        after = body.hits.hits.at(-1).sort
        pit = body.pit_id ?? pit
      }
      await api.closePit(client, pit)
      assert.ok(pages.length > 1)
      return pages
    }),

    'pages of a reranked search': async () => {
      const page = async (from, size) =>
        ids((await api.search(through, { index: ROUTED_INDEX, query: LAPTOP, from, size })).body)
      const whole = await page(0, 40)
      assert.deepEqual([...(await page(0, 15)), ...(await page(15, 15)), ...(await page(30, 10))], whole)
    },

    'errors: 404, 409, 400': same(async (client) => [
      await refused(() => api.get(client, { index: PLAIN, id: 'missing' })),
      await refused(() => api.search(client, { index: `${PREFIX}-missing`, query: LAPTOP })),
      await refused(() => api.create(client, { index: PLAIN })),
      await refused(() => api.search(client, { index: PLAIN, query: { no_such_query: {} } })),
      await refused(() => api.search(client, { index: ROUTED_INDEX, query: { no_such_query: {} } })),
      await refused(() => api.search(client, { index: ROUTED_INDEX, query: LAPTOP, from: -1 })),
      await refused(() => api.search(client, { index: ROUTED_INDEX, query: LAPTOP, size: 100000 })),
    ]),

    'compressed both ways': async () => {
      const packed = { straight: api.open(clients.urls.straight, api.COMPRESSED), through: api.open(PROXY_URL, api.COMPRESSED) }
      await alike(packed, async (client) => {
        const { time, bytes, ...stats } = await filled(client, `${PREFIX}-packed`, 200)
        const found = await api.search(client, { index: `${PREFIX}-packed`, query: { match: { title: 'laptop' } }, sort: 'number' })
        await api.remove(client, { index: `${PREFIX}-packed` })
        return [stats, reply(found), found.headers['content-encoding'] ?? null]
      })()
      const body = { index: ROUTED_INDEX, query: LAPTOP, size: 50 }
      const other = await api.search(packed.through, body)
      checkReranked(other.body, outcomeOf(other), (await api.search(packed.straight, body)).body, await sources())
    },

    'the engine is away: 502 in its shape, tried again as the client does': async () => {
      const client = api.open(AWAY_URL, {})
      let tries = 0
      api.onRequest(client, () => tries++)
      const error = await refused(() => api.search(client, { index: ROUTED_INDEX, query: LAPTOP }))
      assert.deepEqual([error.class, error.status, error.body.status, tries], ['ResponseError', 502, 502, 4])
      assert.equal(typeof error.body.error.reason, 'string')
    },

    'one connection for one search after the other': same(async (client) => {
      const opened = await connections(async () => {
        for (let turn = 0; turn < 10; turn++) await api.search(client, { index: PLAIN, query: { term: { number: turn } } })
      })
      assert.ok(opened <= 1, `${opened} connections`)
      return opened
    }),

    'many searches at once': async () => {
      const body = { index: ROUTED_INDEX, query: LAPTOP, size: 10 }
      const expected = ids((await api.search(through, body)).body)
      const all = await Promise.all(Array.from({ length: AT_ONCE }, () => api.search(through, body)))
      assert.deepEqual(new Set(all.map((each) => JSON.stringify(ids(each.body)))), new Set([JSON.stringify(expected)]))
      assert.ok(all.every((each) => outcomeOf(each).startsWith('reranked')))
    },

    'it stays with the address it was given': async () => {
      assert.deepEqual(api.addresses(through), [`${PROXY_URL}/`])
    },
  }
}
