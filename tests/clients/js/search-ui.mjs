// Elastic's Search UI: its connector for Elasticsearch, which sends `_search` by `fetch`.
import Connector from '@elastic/search-ui-elasticsearch-connector'

import { ENGINE_URL, PROXY_URL, ROUTED_INDEX, alike, assert, checkFacets, outcomes, run } from './harness.mjs'

const open = (host) => new Connector({ host, index: ROUTED_INDEX })
const clients = { straight: open(ENGINE_URL), through: open(PROXY_URL) }
const LAPTOP = { searchTerm: 'laptop, phone or camera to edit video for kids', resultsPerPage: 50, current: 1, filters: [] }
const CONFIG = {
  search_fields: { title: { weight: 2 }, description: { weight: 1 } },
  result_fields: { id: { raw: {} }, title: { snippet: {} }, brand: { raw: {} }, price: { raw: {} } },
  facets: {
    'brand.keyword': { type: 'value', size: 20 },
    price: { type: 'range', ranges: [{ to: 500, name: 'low' }, { from: 500, name: 'high' }] },
  },
}
const SUGGESTED = {
  results: { resultsPerPage: 20, search_fields: { title: { weight: 2 } }, result_fields: { title: { snippet: {} }, id: { raw: {} } } },
}

const search = async (client, state = {}, config = {}) => {
  const { requestId, rawResponse, ...found } = await client.onSearch({ ...LAPTOP, ...state }, { ...CONFIG, ...config })
  return found
}
const idsOf = ({ results }) => results.map((result) => result.id.raw)
const brandsOf = ({ facets }) => Object.fromEntries(facets['brand.keyword'][0].data.map(({ value, count }) => [value, count]))
const product = ({ id, brand, price, title }) => ({ id, brand, price, title: title.raw })

await run({
  'a search is reranked, its documents the engine\'s': async () => {
    const straight = await search(clients.straight)
    const { value: through, headers } = await outcomes(() => search(clients.through))
    assert.match(headers.join(), /^reranked/)
    const found = new Map(through.results.map((result) => [result.id.raw, product(result)]))
    assert.ok(straight.results.length > 1)
    for (const result of straight.results) assert.deepEqual(found.get(result.id.raw), product(result))
    assert.notDeepEqual(idsOf(through), idsOf(straight))
    checkFacets(brandsOf(through), brandsOf(straight), through.results.map((result) => result.brand.raw))
    assert.ok(through.totalResults >= straight.totalResults)
  },

  'snippets of what the words found': async () => {
    const snippets = ({ results }) => new Map(results.map((result) => [result.id.raw, result.title.snippet]))
    const [straight, through] = [await search(clients.straight), await search(clients.through)].map(snippets)
    for (const [id, snippet] of straight) assert.deepEqual(through.get(id), snippet)
  },

  'a filter holds for every hit': async () => {
    const straight = await search(clients.straight)
    const brand = straight.facets['brand.keyword'][0].data[0].value
    const filters = [{ field: 'brand.keyword', values: [brand], type: 'any' }]
    const through = await search(clients.through, { filters })
    assert.deepEqual(new Set(through.results.map((result) => result.brand.raw)), new Set([brand]))
  },

  'pages fit together': async () => {
    const page = async (current, resultsPerPage) => idsOf(await search(clients.through, { current, resultsPerPage }))
    assert.deepEqual([...(await page(1, 10)), ...(await page(2, 10)), ...(await page(3, 10))], await page(1, 30))
  },

  'sorted by price': alike(clients, (client) => search(client, { sortList: [{ field: 'price', direction: 'asc' }] })),
  'no words': alike(clients, (client) => search(client, { searchTerm: '' })),
  'suggestions while typing': async () => {
    const ask = async (client) => {
      const { autocompletedResults } = await client.onAutocomplete({ searchTerm: 'laptop' }, SUGGESTED)
      return autocompletedResults.map((result) => result.id.raw)
    }
    const [straight, through] = [await ask(clients.straight), await ask(clients.through)]
    assert.ok(straight.length > 0)
    assert.ok(through.length >= straight.length)
  },
})
