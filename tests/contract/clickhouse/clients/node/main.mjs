// What a program on the official JavaScript client does. Prints one JSON object of what it saw; the test compares it.
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'

const [url, database] = process.argv.slice(2)
const seen = {}
const log = { level: ClickHouseLogLevel.OFF }

async function failure(work) {
  try {
    await work()
    return null
  } catch (error) {
    return { code: error.code, type: error.type }
  }
}

async function drained(client, query) {
  const result = await client.query({ query, format: 'JSONEachRow' })
  let rows = 0
  for await (const batch of result.stream()) rows += batch.length
  return rows
}

for (const compression of [false, true]) {
  const client = createClient({ url, database, log, compression: { request: compression, response: compression } })
  const table = `node_${compression}`
  const of = (seen[compression ? 'gzip' : 'plain'] = {})
  of.ping = (await client.ping()).success
  await client.command({ query: `CREATE TABLE ${table} (a UInt32, b String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100` })
  for (let i = 0; i < 2; i++) {
    await client.insert({
      table,
      values: [{ a: 1, b: 'x' }, { a: 2, b: 'é' }],
      format: 'JSONEachRow',
      clickhouse_settings: { insert_deduplication_token: 'one', async_insert: 0, wait_end_of_query: 1 },
    })
  }
  const rows = await client.query({ query: `SELECT * FROM ${table} WHERE a >= {least: UInt32} ORDER BY a`, query_params: { least: 1 }, format: 'JSON' })
  of.rows = (await rows.json()).data
  of.streamed = await drained(client, 'SELECT number FROM numbers(200000)')
  of.unknownTable = await failure(() => client.query({ query: 'SELECT * FROM nowhere' }))
  of.midStream = await failure(() => drained(client, 'SELECT throwIf(number = 150000) AS a FROM numbers(200000) SETTINGS max_block_size = 10000, max_threads = 1'))
  const exec = await client.exec({ query: `SELECT count() FROM ${table} FORMAT CSV` })
  let text = ''
  for await (const piece of exec.stream) text += piece
  of.exec = text
  await client.close()
}

const client = createClient({ url, database, log })
const controller = new AbortController()
const begun = Date.now()
setTimeout(() => controller.abort(), 300)
seen.aborted = (await failure(() => client.query({
  query: 'SELECT sum(cityHash64(number)) FROM numbers(1000000000000)', abort_signal: controller.signal, query_id: 'node-aborted',
}))) !== null && Date.now() - begun < 30000
await client.close()
console.log(JSON.stringify(seen))
