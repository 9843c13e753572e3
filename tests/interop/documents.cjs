// Every database method of the official client.
"use strict";

const { connected, given, refusal, script } = require("./session.cjs");

script(async (seen) => {
  const client = await connected();
  const collectionname = `things-${given.suffix}`;
  const of = (options) => ({ collectionname, ...options });

  const one = await client.InsertOne(of({ item: { name: "one", _type: "Thing", n: 1, when: new Date(0), "a.b": 3 } }));
  seen.inserted = one;
  seen.many = await client.InsertMany(of({ items: [{ name: "two", n: 2 }, { name: "three", n: 3 }] }));
  seen.silent = await client.InsertMany(of({ items: [{ name: "four", n: 4 }], skipresults: true }));
  seen.replaced = await client.UpdateOne(of({ item: { ...one, name: "uno", list: [1] } }));
  seen.updated = await client.UpdateDocument(
    of({ query: { name: "uno" }, document: { $set: { name: "eins" }, $push: { list: 2 } } }),
  );
  seen.upserted = await client.InsertOrUpdateOne(of({ item: { name: "two", n: 22 }, uniqeness: "name" }));
  seen.added = await client.InsertOrUpdateOne(of({ item: { name: "five", n: 5 }, uniqeness: "name" }));
  seen.upsertedMany = await client.InsertOrUpdateMany(
    of({ items: [{ name: "three", n: 33 }, { name: "six", n: 6 }], uniqeness: "name", skipresults: false }),
  );
  seen.upsertedSilently = await client.InsertOrUpdateMany(of({ items: [{ name: "six", n: 66 }], uniqeness: "name" }));

  seen.query = await client.Query(
    of({ query: { name: /^(EINS|two)$/i }, projection: { name: 1, n: 1, list: 1 }, orderby: { name: 1 }, top: 5 }),
  );
  seen.page = await client.Query(of({ query: {}, orderby: "n", top: 2, skip: 1, projection: { n: 1, _id: 0 } }));
  seen.dated = await client.Query(of({ query: { when: { $lte: new Date(1) } }, projection: { name: 1 } }));
  seen.found = await client.FindOne(of({ query: { list: 2 } }));
  seen.nothing = await client.FindOne(of({ query: { name: "none" } }));
  seen.first = await client.GetDocumentVersion(of({ id: one._id, version: 0 }));
  seen.versionOne = await client.GetDocumentVersion(of({ id: one._id, version: 1 }));
  seen.count = await client.Count(of({ query: { n: { $gt: 3 } } }));
  seen.distinct = await client.Distinct(of({ field: "name", query: { n: { $lt: 30 } } }));
  seen.aggregate = await client.Aggregate(
    of({ aggregates: [{ $match: { n: { $gt: 1 } } }, { $group: { _id: null, total: { $sum: "$n" } } }] }),
  );

  await client.CreateCollection({ collectionname: `made-${given.suffix}` });
  seen.collections = await client.ListCollections();
  seen.withHistory = await client.ListCollections({ includehist: true });
  seen.index = await client.CreateIndex(of({ index: { name: 1 }, options: { unique: true }, indexname: "by_name" }));
  seen.indexes = await client.GetIndexes({ collectionname });
  seen.duplicate = await refusal(() => client.InsertOne(of({ item: { name: "two" } })));
  await client.DropIndex(of({ indexname: "by_name", name: seen.index }));
  seen.indexesLeft = await client.GetIndexes({ collectionname });
  await client.DropCollection({ collectionname: `made-${given.suffix}` });
  seen.collectionsLeft = await client.ListCollections();

  seen.deleted = await client.DeleteOne(of({ id: one._id }));
  seen.deletedAgain = await client.DeleteOne(of({ id: one._id }));
  seen.deletedByQuery = await client.DeleteMany(of({ query: { n: { $gt: 20 } } }));
  seen.deletedById = await client.DeleteMany(of({ ids: [seen.added._id] }));
  seen.left = await client.Count(of({}));
  client.Close();
});
