// Uploads and downloads of the official client, by id and by name, and what happens to files in use.
"use strict";

const fs = require("fs");
const path = require("path");
const { connected, given, refusal, script } = require("./session.cjs");

script(async (seen) => {
  const client = await connected();
  const source = path.join(given.folder, "measured values.bin");
  const contents = Buffer.alloc(given.size, "0123456789abcdef?");
  fs.writeFileSync(source, contents);
  const target = path.join(given.folder, "down");
  fs.mkdirSync(target, { recursive: true });

  const uploaded = await client.UploadFile({ filename: source, metadata: { origin: "interop", _type: "Measured" } });
  seen.uploaded = { id: uploaded.id, filename: uploaded.filename };
  seen.document = await client.FindOne({ collectionname: "files", query: { _id: uploaded.id } });
  const back = await client.DownloadFile({ id: uploaded.id, folder: target });
  seen.filename = back.filename;
  seen.same = fs.readFileSync(path.join(target, back.filename)).equals(contents);
  process.chdir(target);
  fs.rmSync(path.join(target, back.filename));
  const named = await client.DownloadFile({ filename: "measured values.bin" });
  seen.named = { filename: named.filename, same: fs.readFileSync("measured values.bin").equals(contents) };

  fs.writeFileSync(path.join(given.folder, "nothing"), "");
  const empty = await client.UploadFile({ filename: path.join(given.folder, "nothing") });
  const emptyBack = await client.DownloadFile({ id: empty.id, folder: target });
  seen.empty = fs.statSync(path.join(target, emptyBack.filename)).size;

  const item = { _type: "package", name: "holder", fileid: uploaded.id };
  const holder = await client.InsertOne({ collectionname: "agents", item });
  seen.inUse = await refusal(() => client.DeleteOne({ collectionname: "files", id: uploaded.id }));
  await client.DeleteOne({ collectionname: "agents", id: holder._id });
  seen.deleted = await client.DeleteOne({ collectionname: "fs.files", id: uploaded.id });
  seen.deletedMany = await client.DeleteMany({ collectionname: "files", query: { "metadata.name": "nothing" } });
  seen.gone = await refusal(() => client.DownloadFile({ id: uploaded.id, folder: target }));
  seen.left = await client.Count({ collectionname: "files", query: { "metadata.origin": "interop" } });
  client.Close();
});
