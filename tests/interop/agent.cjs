// What a user of an agent does: run a package over the agent's queue, see its output, kill it.
"use strict";

const { connected, given, script, until } = require("./session.cjs");

script(async (seen) => {
  const client = await connected();
  const told = [];
  const queuename = await client.RegisterQueue({ queuename: "" }, (message, payload) => {
    const bytes = payload.command === "stream" ? Buffer.from(payload.data.data ?? payload.data) : "";
    told.push({ ...payload, data: String(bytes), streamid: message.correlationId });
  });
  const text = (streamid) =>
    told.filter((each) => each.streamid === streamid && each.command === "stream").map((each) => each.data).join("");
  const over = (streamid) => told.some((each) => each.streamid === streamid && each.completed);
  const ask = (data) => client.QueueMessage({ queuename: given.queue, data }, true);

  for (const [name, id] of Object.entries(given.packages)) {
    await client.QueueMessage({
      queuename: given.queue,
      data: { command: "runpackage", id, stream: true, queuename },
      replyto: queuename,
      correlationId: name,
    });
    await until(() => over(name), `${name} ends`);
    seen[name] = text(name);
  }
  if (given.endless) {
    const data = { command: "runpackage", id: given.endless, stream: true, queuename };
    await client.QueueMessage({ queuename: given.queue, data, replyto: queuename, correlationId: "endless" });
    await until(() => text("endless").includes("tick"), "the endless one runs");
    seen.processes = await ask({ command: "listprocesses" });
    seen.killed = await ask({ command: "kill", id: "endless" });
    await until(() => over("endless"), "the endless one is over");
  }
  const unsigned = [];
  const reply = await client.RegisterQueue({ queuename: "" }, (message, payload) => unsigned.push(payload));
  const bare = { command: "killall" };
  await client.QueueMessage({ queuename: given.queue, data: bare, replyto: reply, correlationId: "x", striptoken: true });
  await until(() => unsigned.length > 0, "an answer to who is not signed in");
  seen.unsigned = unsigned[0];
  client.Close();
});
