// openai-node, unchanged, against the edge.

import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

import { collect, prompt, url } from "./suite.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused" });
const messages = [{ role: "user", content: prompt }];

test("a streamed chat ends with a reason and the usage that was asked for", async () => {
  const stream = await client.chat.completions.create({
    model: "auto", messages, stream: true, stream_options: { include_usage: true },
  });
  const chunks = await collect(stream);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  const reasons = chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean);

  assert.match(text, /Millrace/);
  assert.deepEqual(reasons, ["stop"]);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
});

test("a streamed chat and a whole one say the same", async () => {
  const ask = { model: "auto", messages, temperature: 0 };
  const whole = await client.chat.completions.create(ask);
  const runner = client.chat.completions.stream(ask);

  assert.equal(await runner.finalContent(), whole.choices[0].message.content);
});

test("a stream from the cache has the chunks of the one that was kept", async () => {
  const ask = {
    model: "auto", messages: [{ role: "user", content: "Which port does the edge listen on?" }], temperature: 0,
    stream: true, stream_options: { include_usage: true },
  };
  const own = ({ id, created, millrace, ...rest }) => rest;
  const kept = await collect(await client.chat.completions.create(ask));
  const again = await client.chat.completions.create(ask).withResponse();
  const chunks = await collect(again.data);

  assert.equal(again.response.headers.get("x-millrace-cache"), "exact");
  assert.equal(chunks.at(-1).millrace.cache.outcome, "exact");
  assert.deepEqual(chunks.map(own), kept.map(own));
});

test("a stream can be left early, and the next call is answered", async () => {
  const stream = await client.chat.completions.create({ model: "auto", messages, stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    break;
  }

  assert.ok(stream.controller.signal.aborted);
  const next = await client.chat.completions.create({ model: "auto", messages });
  assert.equal(next.choices[0].finish_reason, "stop");
});

test("an unknown model is NotFoundError, a bad parameter is BadRequestError that names it", async () => {
  await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), OpenAI.NotFoundError);
  await assert.rejects(
    client.chat.completions.create({ model: "auto", messages, temperature: 9 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
  );
});

test("models are listed", async () => {
  const models = await collect(client.models.list());

  assert.ok(models.length > 0);
  assert.ok(models.every((model) => model.object === "model"));
});
