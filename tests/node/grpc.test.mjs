// @grpc/grpc-js with the contracts loaded from protos/ at run time, against inference.

import assert from "node:assert/strict";
import test, { after } from "node:test";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

import { collect, prompt, target } from "./suite.mjs";

const protos = fileURLToPath(new URL("../../protos", import.meta.url));
const definition = protoLoader.loadSync("millrace/inference/v1/inference_service.proto", {
  includeDirs: [protos], keepCase: true, longs: Number, enums: String, oneofs: true,
});
const { InferenceService } = grpc.loadPackageDefinition(definition).millrace.inference.v1;
const client = new InferenceService(target, grpc.credentials.createInsecure());
after(() => client.close());

const spec = (text, rest = {}) => ({
  model: "auto", conversation: { messages: [{ role: "ROLE_USER", parts: [{ text }] }] }, ...rest,
});
const soon = () => ({ deadline: Date.now() + 30_000 });

test("a stream starts with `started`, ends with `completed` and counts without gaps", async () => {
  const events = await collect(client.StreamGenerate({ spec: spec(prompt) }, soon()));

  assert.equal(events[0].event, "started");
  assert.equal(events.at(-1).event, "completed");
  assert.deepEqual(events.map((event) => event.sequence), events.map((_, index) => index + 1));
  assert.match(events.map((event) => event.delta?.text ?? "").join(""), /Millrace/);
  assert.ok(events.at(-1).completed.usage.completion_token_count > 0);
});

test("a cancelled stream ends as CANCELLED, and the next call is answered", async () => {
  const call = client.StreamGenerate({ spec: spec(prompt, { cache: { mode: "CACHE_MODE_OFF" } }) }, soon());
  const error = await new Promise((resolve, reject) => {
    call.on("data", () => call.cancel());
    call.on("error", resolve);
    call.on("end", () => reject(new Error("the stream ended as if it were whole")));
  });

  assert.equal(error.code, grpc.status.CANCELLED);
  const next = await new Promise((resolve, reject) =>
    client.Generate({ spec: spec(prompt) }, soon(), (failure, answer) => (failure ? reject(failure) : resolve(answer))));
  assert.match(next.generation.choices[0].text, /Millrace/);
});

test("a failed call carries its reason as google.rpc details", async () => {
  const error = await new Promise((resolve) =>
    client.Generate({ spec: { ...spec(prompt), model: "no-such-model" } }, soon(), (failure) => resolve(failure)));

  assert.equal(error.code, grpc.status.NOT_FOUND);
  const [details] = error.metadata.get("grpc-status-details-bin");
  assert.match(details.toString("latin1"), /MODEL_NOT_FOUND/);
});
