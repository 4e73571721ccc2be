// What every program here does: scenarios one after the other, the same straight at the engine and through the proxy.
import assert from 'node:assert/strict'
import diagnostics from 'node:diagnostics_channel'

export const { ENGINE_URL, PROXY_URL, AWAY_URL, PREFIX, ROUTED_INDEX } = process.env

/** Vectors are for the engine: a routed search leaves them out of `_source` unless they are asked for. */
export const VECTORS = ['embedding', 'embedding_hash']
export const LAPTOP = { multi_match: { query: 'laptop, phone or camera to edit video for kids', fields: ['title^2', 'description'] } }

/** Run each scenario and say so; the first that throws ends the program with a status that tells of it. */
export async function run(scenarios) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario()
    } catch (error) {
      console.log(`DIFFERS ${name}: ${error.stack}`)
      process.exit(1)
    }
    console.log(`ok ${name}`)
  }
  process.exit(0)
}

/** Make a scenario of what must come out alike on both sides. */
export function alike(clients, ask) {
  return async () => {
    const straight = await ask(clients.straight)
    assert.deepEqual(await ask(clients.through), straight)
  }
}

/** Expect an error, and return its class, status and body. */
export async function refused(ask) {
  try {
    await ask()
  } catch (error) {
    return seen(error)
  }
  throw new Error('it was not refused')
}

function seen(error) {
  return { class: error.constructor.name, status: error.statusCode, message: error.message, body: error.meta?.body }
}

/** Count the connections that are opened while this is done. */
export async function connections(ask) {
  let count = 0
  const opened = () => count++
  diagnostics.subscribe('net.client.socket', opened)
  await ask()
  diagnostics.unsubscribe('net.client.socket', opened)
  return count
}

/** Take out what differs from one search to the next. */
export function steady(body) {
  return JSON.parse(JSON.stringify(body, (key, value) => (VOLATILE.has(key) ? undefined : value)))
}
const VOLATILE = new Set(['took', '_scroll_id', 'pit_id'])

export const ids = (body) => body.hits.hits.map((hit) => hit._id)

export const documents = (count) =>
  Array.from({ length: count }, (_, number) => ({ number, title: `Laptop ${number}`, brand: ['acme', 'globex'][number % 2] }))

/** Check that a search was reranked, that it found what the engine finds, and that each document is the engine's. */
export function checkReranked(through, outcome, straight, sources) {
  assert.match(outcome, /^reranked/)
  const found = new Set(ids(through))
  assert.equal(found.size, through.hits.hits.length)
  assert.ok(ids(straight).every((id) => found.has(id)), `${ids(straight)} are not all in ${[...found]}`)
  assert.notDeepEqual(ids(through), ids(straight))
  assert.ok(through.hits.total.value >= straight.hits.total.value)
  assert.deepEqual(Object.keys(through.aggregations ?? {}), Object.keys(straight.aggregations ?? {}))
  if (straight.aggregations) checkFacets(brandsOf(through), brandsOf(straight), through.hits.hits.map((hit) => hit._source.brand))
  const scores = through.hits.hits.map((hit) => hit._score)
  assert.deepEqual(scores, [...scores].sort((one, other) => other - one))
  for (const hit of through.hits.hits) assert.deepEqual(hit._source, sources.get(hit._id))
}

const brandsOf = (body) => Object.fromEntries(body.aggregations.brands.buckets.map((each) => [each.key, each.doc_count]))

/** Check that the counts of a facet cover the hits that are shown, and those of the engine alone. */
export function checkFacets(through, straight, shown) {
  const counts = {}
  for (const value of shown) counts[value] = (counts[value] ?? 0) + 1
  for (const [value, count] of [...Object.entries(counts), ...Object.entries(straight)]) {
    assert.ok(through[value] >= count, `${value}: ${through[value]} instead of at least ${count}`)
  }
}

export { assert }

/** Do this, and read the `X-Rerank` of the answers that `fetch` was given meanwhile. */
export async function outcomes(ask) {
  const headers = []
  const answered = ({ response }) => {
    const named = response.headers.map(String)
    const place = named.findIndex((each) => each.toLowerCase() === 'x-rerank')
    if (place >= 0) headers.push(named[place + 1])
  }
  diagnostics.subscribe('undici:request:headers', answered)
  const value = await ask()
  diagnostics.unsubscribe('undici:request:headers', answered)
  return { value, headers }
}
