// What the hub does not offer: each call of the official client ends with a sentence that names it.
"use strict";

const { connected, refusal, script } = require("./session.cjs");

script(async (seen) => {
  const client = await connected();
  const item = { _type: "agent", slug: "some-agent", name: "some agent" };
  const { _id: agentid } = await client.InsertOne({ collectionname: "agents", item });
  const pod = { agentid, podname: "pod" };
  const calls = {
    CreateWorkflowInstance: () => client.CreateWorkflowInstance({ targetid: agentid, workflowid: agentid, name: "x" }),
    EnsureCustomer: () => client.EnsureCustomer({ customer: { name: "customer" } }),
    InvokeOpenRPA: () => client.InvokeOpenRPA({ robotid: agentid, workflowid: agentid, payload: {} }),
    StartAgent: () => client.StartAgent({ agentid }),
    StopAgent: () => client.StopAgent({ agentid }),
    GetAgentLog: () => client.GetAgentLog(pod),
    GetAgentPods: () => client.GetAgentPods({ agentid }),
    DeleteAgentPod: () => client.DeleteAgentPod(pod),
    DeleteAgent: () => client.DeleteAgent({ agentid }),
    GetElement: () => client.GetElement("//a"),
    where: () => client.Query({ query: { $where: "1" } }),
    encrypt: () => client.InsertOne({ item: { _encrypt: ["secret"], secret: "x" } }),
    timeseries: () => client.CreateCollection({ collectionname: "series", timeseries: { timeField: "t" } }),
    capped: () => client.CreateCollection({ collectionname: "capped", capped: true, size: 1000 }),
    heapdump: () => client.CustomCommand({ command: "heapdump" }),
    shutdown: () => client.CustomCommand({ command: "shutdown" }),
  };
  for (const [name, call] of Object.entries(calls)) seen[name] = await refusal(call);
  seen.alive = await client.Count({ query: {} });
  client.Close();
});
