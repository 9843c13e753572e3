// Watches, queues, rpc and exchanges of the official client: two connections talk to one another.
"use strict";

const { connected, given, refusal, script, until } = require("./session.cjs");

script(async (seen) => {
  const asking = await connected();
  const answering = await connected();

  const all = [];
  const packages = [];
  const watch = await answering.Watch({ collectionname: `seen-${given.suffix}`, paths: [] }, (operation, document) => {
    all.push([operation, document.name]);
  });
  const paths = ["$.[?(@._type == 'package')]"];
  await answering.Watch({ collectionname: `seen-${given.suffix}`, paths }, (operation, document) => {
    packages.push([operation, document.name]);
  });
  const one = await asking.InsertOne({ collectionname: `seen-${given.suffix}`, item: { name: "a", _type: "package" } });
  await asking.InsertOne({ collectionname: `seen-${given.suffix}`, item: { name: "other", _type: "test" } });
  await asking.UpdateOne({ collectionname: `seen-${given.suffix}`, item: { ...one, name: "b" } });
  await asking.UpdateDocument({ collectionname: `seen-${given.suffix}`, query: { _id: one._id }, document: { $set: { name: "c" } } });
  await asking.DeleteOne({ collectionname: `seen-${given.suffix}`, id: one._id });
  await until(() => all.length === 5 && packages.length === 4, "all events");
  await answering.UnWatch({ id: watch });
  await asking.InsertOne({ collectionname: `seen-${given.suffix}`, item: { name: "d", _type: "package" } });
  await until(() => packages.length === 5, "the event of the watch that stays");
  seen.all = all;
  seen.packages = packages;

  const heard = [];
  seen.queue = await answering.RegisterQueue({ queuename: `InteropQueue-${given.suffix}` }, (message, payload, user, jwt) => {
    heard.push({ queue: message.queuename, payload, user: user?.username ?? null, jwt: Boolean(jwt) });
    return message.replyto ? { answer: payload.question + 1 } : undefined;
  });
  seen.rpc = await asking.QueueMessage({ queuename: seen.queue, data: { question: 41 } }, true);
  await asking.QueueMessage({ queuename: seen.queue, data: { question: 1 }, striptoken: true });
  await until(() => heard.length === 2, "both messages");
  seen.heard = heard;
  seen.private = await answering.RegisterQueue({ queuename: "" }, () => undefined);
  seen.timeout = await asking.QueueMessage({ queuename: `nobodys-queue-${given.suffix}`, data: { question: 1 } }, true);
  seen.bad = await refusal(() => asking.QueueMessage({ queuename: `nobodys-queue-${given.suffix}`, data: { question: 1 } }, true));
  await answering.UnRegisterQueue({ queuename: seen.queue });
  const expiring = { queuename: seen.queue, data: { question: 1 }, expiration: 200 };
  seen.expired = await asking.QueueMessage(expiring, true);

  seen.exchange = await refusal(() =>
    answering.RegisterExchange({ exchangename: "news", algorithm: "fanout" }, () => undefined),
  );
  seen.toExchange = await refusal(() => asking.QueueMessage({ exchangename: "news", data: { n: 1 } }));
  asking.Close();
  answering.Close();
});
