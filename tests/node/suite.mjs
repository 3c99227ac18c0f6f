// Where the suite under test answers; tools/node-test.sh starts it and says so.

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run \`make node-test\``);
  return value;
}

export const url = required("MILLRACE_URL");
export const target = required("MILLRACE_TARGET");
export const prompt = "What is Millrace?";

// Array.fromAsync, which Node 20 does not have yet.
export async function collect(items) {
  const all = [];
  for await (const item of items) all.push(item);
  return all;
}
