// A node that was started ahead: it waits for what it is to be, then is that, as if it had been started so.
"use strict";

const fs = require("fs");
const { runMain } = require("module");

// Made and loaded now rather than when the first line is printed.
process.stdout;
process.stderr;
require("util").inspect({ any: ["thing"] });

let told;
try {
  told = JSON.parse(fs.readFileSync(0, "utf8"));
} catch {
  process.exit(0); // whoever might have needed it is gone
}
for (const name of Object.keys(process.env)) {
  if (!(name in told.env)) delete process.env[name];
}
Object.assign(process.env, told.env);
process.chdir(told.cwd);
process.argv.splice(1, process.argv.length, ...told.argv);
delete require.cache[__filename];
runMain();
