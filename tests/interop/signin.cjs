// How the official client signs in: by token, by password in the address, by call; long tokens; another user's token.
"use strict";

const { connected, given, openiap, refusal, script } = require("./session.cjs");

/** The address with these credentials in it. */
function address(username, password) {
  const url = new URL(given.url);
  url.username = encodeURIComponent(username);
  url.password = encodeURIComponent(password);
  return url.href;
}

script(async (seen) => {
  const client = await connected();
  seen.config = client.flowconfig;
  const byPassword = await connected(address(given.username, given.password), "");
  seen.byPassword = byPassword.client.user.username;
  byPassword.Close();
  const bare = new openiap(given.url, "");
  await bare.connect();
  seen.before = await refusal(() => bare.Query({ query: {} }));
  seen.roles = (await bare.Signin({ username: given.username, password: given.password })).user.roles;
  seen.after = await bare.Count({ query: {} });
  bare.Close();

  seen.long = await client.Signin({ validateonly: true, longtoken: true });
  seen.validated = (await client.Signin({ jwt: seen.long.jwt, validateonly: true })).user.username;
  seen.wrong = await refusal(() => client.Signin({ jwt: "no.such.token", validateonly: true }));
  seen.wrongPassword = await refusal(() => connected(address(given.username, "wrong"), ""));
  seen.custom = await client.CustomCommand({ command: "nosuchcommand", data: {} });
  const item = { name: "theirs" };
  const other = await connected(address("another", "password of another"), "");
  const theirs = await client.InsertOne({ collectionname: "theirs", item, jwt: other.client.jwt });
  seen.createdBy = theirs._createdby;
  seen.unreadable = await other.Count({ collectionname: "signins", query: {} });
  await client.InsertOne({ collectionname: "signins", item: { name: "mine" } });
  seen.stillUnreadable = await other.Count({ collectionname: "signins", query: {} });
  const queryas = other.client.user._id;
  seen.asAnother = await client.Query({ collectionname: "signins", query: {}, queryas });
  seen.adminsOnly = {
    GetIndexes: await refusal(() => other.GetIndexes({ collectionname: "things" })),
    CreateIndex: await refusal(() => other.CreateIndex({ collectionname: "things", index: { n: 1 } })),
    DropIndex: await refusal(() => other.DropIndex({ collectionname: "things", name: "n_1" })),
    CreateCollection: await refusal(() => other.CreateCollection({ collectionname: "theirs" })),
    DropCollection: await refusal(() => other.DropCollection({ collectionname: "things" })),
  };
  const clients = JSON.parse(await client.CustomCommand({ command: "getclients" }));
  seen.clients = clients.map(({ agent, username, version }) => ({ agent, username, version }));
  seen.clientsOfOther = JSON.parse(await other.CustomCommand({ command: "getclients" })).map((one) => one.username);
  other.Close();
  client.Close();
});
