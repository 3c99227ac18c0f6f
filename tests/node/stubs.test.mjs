// TypeScript stubs as buf.gen.yaml makes them, called over gRPC.

import assert from "node:assert/strict";
import test from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { Role } from "./gen/millrace/inference/v1/generation_pb.js";
import { InferenceService } from "./gen/millrace/inference/v1/inference_service_pb.js";
import { prompt, target } from "./suite.mjs";

const client = createClient(InferenceService, createGrpcTransport({ baseUrl: `http://${target}` }));
const conversation = { messages: [{ role: Role.USER, parts: [{ part: { case: "text", value: prompt } }] }] };

test("generated stubs stream an answer to its receipt", async () => {
  const spec = { model: "auto", input: { case: "conversation", value: conversation } };
  const kinds = [];
  let text = "";
  for await (const { event } of client.streamGenerate({ spec }, { timeoutMs: 30_000 })) {
    kinds.push(event.case);
    if (event.case === "delta") text += event.value.text;
  }

  assert.equal(kinds.at(-1), "completed");
  assert.match(text, /Millrace/);
});

test("a missing input is INVALID_ARGUMENT", async () => {
  await assert.rejects(
    client.generate({ spec: { model: "auto" } }),
    (error) => error instanceof ConnectError && error.code === Code.InvalidArgument,
  );
});
