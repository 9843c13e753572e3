// One connection of the official client, as its users would write it. What a script has seen goes as JSON into a file:
// the client logs to standard output.
"use strict";

const fs = require("fs");
const { openiap } = require("@openiap/nodeapi");

const given = JSON.parse(process.argv[2]); // {url, jwt, username, password, folder, out, ...}

/** A connected client, by token; with `address` by what stands in it. */
async function connected(address = given.url, jwt = given.jwt) {
  const client = new openiap(address, jwt);
  client.allowconnectgiveup = true;
  await client.connect();
  return client;
}

/** The message of the error that a call ends with. */
async function refusal(call) {
  try {
    return { result: (await call()) ?? null };
  } catch (error) {
    return { error: String(error?.message ?? error) };
  }
}

/** Wait until `condition` holds: events come when they come. */
async function until(condition, what) {
  const end = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`This did not come about: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Run a script: `seen` is what it reports, also where it fails half way. */
async function script(work) {
  const seen = {};
  try {
    await work(seen);
  } catch (error) {
    seen.failure = String(error?.stack ?? error);
  }
  fs.writeFileSync(given.out, JSON.stringify(seen));
  process.exit(0);
}

module.exports = { connected, given, openiap, refusal, script, until };
