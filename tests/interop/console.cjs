// What a page of the web UI does with an agent, by the official client: one private queue hears everything.
"use strict";

const { connected, given, script, until } = require("./session.cjs");

script(async (seen) => {
  const client = await connected();
  const heard = [];
  const rows = new Map();
  let listings = 0;
  const queuename = await client.RegisterQueue({ queuename: "" }, (message, payload) => {
    const id = message.correlationId;
    heard.push({ id, command: payload.command });
    if (payload.command === "listprocesses") {
      listings += 1;
      payload.processes.forEach((each) => rows.set(each.id, { ...each, text: rows.get(each.id)?.text ?? "" }));
    }
    if (payload.command === "stream") {
      const row = rows.get(id) ?? { id, text: "" };
      row.text += Buffer.from(payload.data.data).toString(); // an array of bytes, or this throws
      rows.set(id, row);
    }
    if (payload.command === "completed" || (payload.command === "runpackage" && payload.completed)) {
      const { __jwt, __user, ...end } = payload;
      rows.set(id, { ...rows.get(id), over: true, end: end.command === "runpackage" ? end : rows.get(id)?.end });
    }
  });
  const tell = (data, correlationId) =>
    client.QueueMessage({ queuename: given.queue, data, replyto: queuename, correlationId });
  const ask = async (data) => {
    const { __jwt, __user, ...answer } = await client.QueueMessage({ queuename: given.queue, data }, true);
    return answer;
  };

  // The page is opened while something runs already.
  await tell({ command: "addcommandstreamid" }, "open");
  await tell({ command: "listprocesses" }, "open");
  await until(() => rows.size > 0, "the running process is listed");
  const [running] = rows.keys();
  seen.running = { ...rows.get(running) };
  rows.get(running).text = "";
  await tell({ command: "setstreamid", streamid: running, streamqueue: queuename }, "follow");
  await until(() => rows.get(running).text.includes("tick"), "its output so far");

  // A package is run from the page, and another without output.
  seen.asked = await ask({ command: "runpackage", id: given.hello, stream: true, queuename, streamid: "mine" });
  await until(() => rows.get("mine")?.end, "the run from the page ends");
  seen.mine = rows.get("mine");
  seen.silent = await ask({ command: "runpackage", id: given.hello, stream: "false", payload: { name: "x" } });

  // The running process is killed.
  seen.killed = await ask({ command: "kill", id: running });
  await until(() => rows.get(running).end, "it is over");
  seen.ended = rows.get(running).end;
  seen.text = rows.get(running).text;
  seen.again = await ask({ command: "kill", id: running });
  seen.tested = await ask({ command: "testrunpackage", packageid: given.endless, kill_after_seconds: 1 });
  seen.prepared = await ask({ command: "preparepackage", packageid: given.hello });
  seen.reinstalled = await ask({ command: "reinstallpackage", id: given.hello });
  seen.killall = await ask({ command: "killall" });
  seen.invoke = await ask({ command: "invoke", wiq: "q" });
  seen.unknown = await ask({ command: "dance" });
  await tell({ command: "removecommandstreamid" }, "close");
  seen.listings = listings;
  seen.heard = heard;
  client.Close();
});
