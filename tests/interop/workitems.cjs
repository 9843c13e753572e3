// Work item queues and work items of the official client, from the first push to the last retry.
"use strict";

const { connected, given, refusal, script, until } = require("./session.cjs");

/** An item without its files' contents, which are told by their text. */
const shown = (item) => item && {
  ...item,
  files: (item.files ?? []).map((file) => ({ filename: file.filename, _id: file._id, size: file.file?.length ?? 0 })),
};

/** What a client that serves a queue is told when an item is due. */
async function hint(client, wiq, queue) {
  const told = [];
  const amqpqueue = await client.RegisterQueue({ queuename: `worker-of-${wiq}` }, (message, payload) => {
    told.push({ payload, correlationId: message.correlationId, replyto: message.replyto });
  });
  const workitemqueue = { ...queue, amqpqueue, packageid: "a-package" };
  await client.UpdateWorkItemQueue({ workitemqueue, skiprole: true });
  await client.PushWorkitem({ wiq, name: "hinted", payload: { n: 4 } });
  await until(() => told.length > 0, "the hint about a due item");
  return told[0];
}

script(async (seen) => {
  const client = await connected();
  const wiq = `orders-${given.suffix}`;
  const settings = { name: wiq, maxretries: 2, retrydelay: 0, initialdelay: 0 };
  const queue = await client.AddWorkItemQueue({ workitemqueue: settings, skiprole: true });
  seen.queue = queue;
  const changed = { ...queue, maxretries: 3 };
  seen.changed = await client.UpdateWorkItemQueue({ workitemqueue: changed, skiprole: true });

  const file = Buffer.from("the order");
  const files = [{ filename: "order.txt", file, compressed: false, _id: "" }];
  const first = await client.PushWorkitem({ wiq, name: "first", payload: { n: 1 }, files });
  seen.pushed = shown(first);
  const items = [
    { name: "second", payload: { n: 2 }, priority: 1, files: [] },
    { name: "third", payload: { n: 3 }, priority: 3, files: [] },
  ];
  seen.pushedMany = (await client.PushWorkitems({ wiqid: queue._id, items })).map((item) => item.name);

  const pop = () => client.PopWorkitem({ wiq, includefiles: true, compressed: false });
  const second = await pop();
  seen.urgent = shown(second);
  const withFile = await pop();
  seen.withFile = shown(withFile);
  seen.contents = Buffer.from(withFile.files[0].file).toString();

  second.state = "successful";
  second.payload = { n: 2, done: true };
  seen.successful = shown(await client.UpdateWorkitem({ workitem: { ...second, files: [] } }));
  const kept = withFile.files.map(({ filename, _id }) => ({ filename, _id, compressed: false }));
  const retried = { ...withFile, state: "retry", errormessage: "no network", files: kept };
  seen.retried = shown(await client.UpdateWorkitem({ workitem: retried }));
  seen.illegal = await refusal(() =>
    client.UpdateWorkitem({ workitem: { ...second, state: "abandoned", payload: { n: 2 }, files: [] } }),
  );
  const again = await pop();
  const failed = { ...again, state: "retry", errortype: "business", errormessage: "no such customer", files: [] };
  seen.business = shown(await client.UpdateWorkitem({ workitem: failed }));
  const third = await pop();
  seen.third = third.name;
  seen.empty = (await pop()) ?? null;

  if (given.hints) seen.hint = await hint(client, wiq, seen.changed);
  else await client.PushWorkitem({ wiq, name: "hinted", payload: { n: 4 } });
  const hinted = await pop();
  await client.DeleteWorkitem({ _id: hinted._id });
  seen.itemsLeft = await client.Count({ collectionname: "workitems", query: { wiq } });
  seen.notEmpty = await refusal(() => client.DeleteWorkItemQueue({ wiq }));
  await client.DeleteWorkItemQueue({ wiq, purge: true });
  seen.queuesLeft = await client.Count({ collectionname: "mq", query: { name: wiq } });
  seen.unknown = await refusal(() => client.PushWorkitem({ wiq, payload: {} }));
  client.Close();
});
