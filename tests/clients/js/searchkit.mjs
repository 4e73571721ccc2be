// searchkit: InstantSearch's requests, which become one `_msearch`.
import Client from '@searchkit/api'

import { ENGINE_URL, PROXY_URL, ROUTED_INDEX, alike, assert, checkFacets, outcomes, run } from './harness.mjs'

const SETTINGS = {
  search_attributes: [{ field: 'title', weight: 2 }, 'description'],
  result_attributes: ['id', 'title', 'brand', 'price'],
  highlight_attributes: ['title'],
  facet_attributes: [{ attribute: 'brand', field: 'brand.keyword', type: 'string' }, { attribute: 'price', field: 'price', type: 'numeric' }],
  sorting: { default: { field: '_score', order: 'desc' }, _price: { field: 'price', order: 'asc' } },
}
const open = (host) => Client({ connection: { host }, search_settings: SETTINGS })
const clients = { straight: open(ENGINE_URL), through: open(PROXY_URL) }
const LAPTOP = { query: 'laptop, phone or camera to edit video for kids', facets: ['brand', 'price'], hitsPerPage: 50, page: 0 }

async function ask(client, ...searches) {
  const { results } = await client.handleRequest(searches.map(({ indexName = ROUTED_INDEX, ...params }) => ({ indexName, params })))
  return results.map(({ processingTimeMS, ...result }) => result)
}

/** A hit without what its place among the others decides. */
const product = ({ objectID, id, title, brand, price }) => ({ objectID, id, title, brand, price })

await run({
  'a search is reranked, its documents the engine\'s': async () => {
    const [straight] = await ask(clients.straight, LAPTOP)
    const { value, headers } = await outcomes(() => ask(clients.through, LAPTOP))
    const [through] = value
    assert.match(headers.join(), /^reranked/)
    const found = new Map(through.hits.map((hit) => [hit.objectID, product(hit)]))
    for (const hit of straight.hits) assert.deepEqual(found.get(hit.objectID), product(hit))
    assert.notDeepEqual(through.hits.map(product), straight.hits.map(product))
    checkFacets(through.facets.brand, straight.facets.brand, through.hits.map((hit) => hit.brand))
    assert.ok(through.nbHits >= straight.nbHits)
  },

  'highlights of what the words found': async () => {
    const marked = ([{ hits }]) => new Map(hits.map((hit) => [hit.objectID, hit._highlightResult.title]))
    const [straight, through] = [await ask(clients.straight, LAPTOP), await ask(clients.through, LAPTOP)].map(marked)
    assert.ok(straight.size > 0)
    for (const [id, title] of straight) assert.deepEqual(through.get(id), title)
  },

  'a refinement holds for every hit': async () => {
    const [{ facets }] = await ask(clients.straight, LAPTOP)
    const [brand] = Object.keys(facets.brand)
    const refined = { ...LAPTOP, facetFilters: [[`brand:${brand}`]], numericFilters: ['price<=5000'] }
    const [{ hits }] = await ask(clients.through, refined)
    assert.deepEqual(new Set(hits.map((hit) => hit.brand)), new Set([brand]))
  },

  'pages fit together': async () => {
    const page = async (number, size) => {
      const [{ hits }] = await ask(clients.through, { ...LAPTOP, page: number, hitsPerPage: size })
      return hits.map((hit) => hit.objectID)
    }
    assert.deepEqual([...(await page(0, 10)), ...(await page(1, 10)), ...(await page(2, 10))], await page(0, 30))
  },

  'sorted by price': alike(clients, (client) => ask(client, { ...LAPTOP, indexName: `${ROUTED_INDEX}_price` })),
  'no words': alike(clients, (client) => ask(client, { ...LAPTOP, query: '' })),
  'facets alone': alike(clients, (client) => ask(client, { ...LAPTOP, hitsPerPage: 0 })),
  'several searches, as a page with refinements sends them': async () => {
    const searches = [LAPTOP, { ...LAPTOP, hitsPerPage: 0, facets: ['brand'] }]
    const [straight, through] = [await ask(clients.straight, ...searches), await ask(clients.through, ...searches)]
    assert.deepEqual(through[1], straight[1])
    checkFacets(through[0].facets.brand, straight[0].facets.brand, through[0].hits.map((hit) => hit.brand))
  },
})
