// The openai Node SDK, unmodified, against what sdk_node_test.py has started:
// PROXY (a URL) and ENGINES (addresses; the last engine is the slow one).
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

const { default: OpenAI } = await import(process.env.OPENAI);
const engines = process.env.ENGINES.split(",");
const TURBINE =
  "Turbine (noun): rotary engine in which the kinetic energy of a moving fluid is converted " +
  "into mechanical energy by causing a bladed rotor to rotate.";

const connect = (options) =>
  new OpenAI({
    baseURL: `${process.env.PROXY}/v1`, apiKey: "a-key", maxRetries: 0, timeout: 30_000, ...options });
const client = connect();
const chat = (more) => ({
  model: "lexicon-5m", messages: [{ role: "user", content: "What is a turbine?" }], temperature: 0, ...more });
const ask = (more, from = client) => from.chat.completions.create(chat(more));

// The error of `promise`, which must be of `type` and name the request.
async function refused(type, promise) {
  const error = await promise.then(() => assert.fail("there was no error"), (reason) => reason);
  assert.ok(error instanceof type, `${error?.constructor?.name}: ${error?.message}`);
  assert.match(error.requestID, /^[0-9a-f]{32}$/);
  return error;
}

// Waits until the slow engine's load is as `wanted` says.
async function slowEngine(what, wanted) {
  const end = Date.now() + 30_000;
  for (;;) {
    const load = await (await fetch(`http://${engines.at(-1)}/load`)).json();
    if (wanted(load)) return;
    assert.ok(Date.now() < end, `the engine is not ${what}: ${JSON.stringify(load)}`);
    await pause(20);
  }
}
const busy = () => slowEngine("busy", (load) => load.running === 1);
const idle = () => slowEngine("idle", (load) => load.running + load.waiting + load.kv_blocks_used === 0);

test("a chat is answered", async () => {
  const answer = await ask();
  assert.equal(answer.choices[0].message.content, TURBINE);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.match(answer._request_id, /^[0-9a-f]{32}$/);
});

test("a stream tells the same answer and its usage last, from an engine and from the cache", async () => {
  for (let turn = 0; turn < 2; ++turn) {
    const chunks = [];
    const stream = await ask({ stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.pop();
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), TURBINE);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    assert.deepEqual([last.choices, last.usage], [[], (await ask()).usage]);
  }
});

test("the same question again comes out of the cache", async () => {
  const body = chat({ max_tokens: 8 });
  const first = await client.chat.completions.create(body).withResponse();
  const second = await client.chat.completions.create(body).withResponse();
  assert.doesNotMatch(first.response.headers.get("cache-status"), /hit/);
  assert.match(second.response.headers.get("cache-status"), /^penstock; hit/);
  assert.deepEqual(first.data.choices, second.data.choices);
});

test("a completion is answered", async () => {
  const answer = await client.completions.create({ model: "lexicon-5m", prompt: "A turbine is", max_tokens: 5 });
  assert.deepEqual([answer.object, answer.usage.completion_tokens], ["text_completion", 5]);
});

test("models are listed over all pools", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  for (const name of ["lexicon-5m", "slow-emulated", "hung"]) assert.ok(names.includes(name), names.join());
  assert.equal((await client.models.retrieve("lexicon-5m")).object, "model");
});

test("an unknown model is not found", async () => {
  for (const call of [() => ask({ model: "gpt-0" }), () => client.models.retrieve("gpt-0")]) {
    const error = await refused(OpenAI.NotFoundError, call());
    assert.deepEqual([error.status, error.code, error.type], [404, "model_not_found", "invalid_request_error"]);
  }
});

test("a wrong field is a bad request that names it", async () => {
  const error = await refused(OpenAI.BadRequestError, ask({ temperature: 9 }));
  assert.deepEqual([error.status, error.param, error.type], [400, "temperature", "invalid_request_error"]);
});

test("a wrong key is an authentication error", async () => {
  const error = await refused(OpenAI.AuthenticationError, ask({ model: "guarded" }));
  assert.deepEqual([error.status, error.code], [401, "invalid_api_key"]);
});

test("a full pool is a rate limit error that says when to come back", async () => {
  const stream = await ask({ model: "slow-emulated", stream: true, max_tokens: 400 });
  const chunks = stream[Symbol.asyncIterator]();
  await chunks.next();
  const error = await refused(OpenAI.RateLimitError, ask({ model: "slow-emulated" }));
  await chunks.return();
  assert.deepEqual([error.status, error.code, error.type], [429, "queue_full", "rate_limit_error"]);
  assert.ok(Number(error.headers.get("retry-after")) >= 1);
});

test("no healthy backend is an internal server error", async () => {
  const error = await refused(OpenAI.InternalServerError, ask({ model: "gone" }));
  assert.deepEqual([error.status, error.type], [503, "server_error"]);
});

test("a stream that its backend dropped is an error after the text that came", async () => {
  const chunks = (await ask({ model: "broken", stream: true }))[Symbol.asyncIterator]();
  assert.equal((await chunks.next()).value.choices[0].delta.content, "Tur");
  await assert.rejects(chunks.next(), (error) => error instanceof OpenAI.APIError && /^backend_/.test(error.code));
});

test("a backend that hangs is given up and the SDK does not repeat it", async () => {
  const error = await refused(
    OpenAI.InternalServerError, ask({ model: "hung", stream: true }, connect({ maxRetries: 2 })));
  assert.deepEqual([error.status, error.code], [504, "backend_first_token_timeout"]);
});

test("leaving a stream frees the blocks of its engine", async () => {
  const stream = await ask({ model: "slow-emulated", stream: true, max_tokens: 400 });
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    await busy();
    break;
  }
  await idle();
});

test("an aborted request is dropped everywhere", async () => {
  const abort = new AbortController();
  const body = chat({ model: "slow-emulated", max_tokens: 400 });
  const answer = client.chat.completions.create(body, { signal: abort.signal });
  const rejected = assert.rejects(answer, OpenAI.APIUserAbortError);
  await busy();
  abort.abort();
  await rejected;
  await idle();
});

test("the timeout of a client ends its request everywhere", async () => {
  await assert.rejects(ask({ model: "slow-emulated", max_tokens: 400 }, connect({ timeout: 500 })),
    OpenAI.APIConnectionTimeoutError);
  await idle();
  assert.equal((await ask({ model: "slow-emulated", max_tokens: 1 })).usage.completion_tokens, 1);
});
