// Publishing and removing a package with the official client, as the guide of OpenFlow says.
"use strict";

const { connected, given, refusal, script } = require("./session.cjs");

script(async (seen) => {
  const client = await connected();
  const collectionname = "agents";
  const manifest = { _type: "package", id: "by-hand", name: "by-hand", version: "1.0.0", language: "nodejs" };
  const empty = await client.InsertOne({ collectionname, item: { ...manifest, fileid: "" } });
  const { id: fileid } = await client.UploadFile({ filename: given.archive });
  seen.published = await client.UpdateOne({ collectionname, item: { ...empty, fileid, main: "main.js" } });

  const none = { ...manifest, fileid: "5a1702fa245d9013697656fb" };
  seen.noFile = await refusal(() => client.InsertOne({ collectionname, item: none }));
  const { id: second } = await client.UploadFile({ filename: given.archive });
  const doomed = await client.InsertOne({ collectionname, item: { ...manifest, name: "doomed", fileid: second } });
  await client.DeletePackage({ packageid: doomed._id });
  seen.packages = (await client.Query({ collectionname, query: { _type: "package" } })).map((item) => item._id);
  seen.files = (await client.Query({ collectionname: "files", query: {} })).map((file) => file._id);
  seen.unknown = await refusal(() => client.DeletePackage({ packageid: doomed._id }));
  client.Close();
});
