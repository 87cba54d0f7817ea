// Calls a node with msgpack-rpc-lite, and prints what came of it as JSON: HOST PORT NAME.
"use strict";

const { createClient } = require("msgpack-rpc-lite");

const [host, port, name] = process.argv.slice(2);
const client = createClient(Number(port), host);

const call = (method, ...params) => client.request(method, ...params).then(([result]) => result);

const refusal = (method) => call(method).then(() => null, (error) => error);

async function main() {
  const results = {};
  results.add = await call("calculator.add", 2, 3);
  results.echo = await call("calculator.echo", { a: [1, -1, 2 ** 40, 1.5, null, true, "ü".repeat(300)] });
  const bytes = Buffer.alloc(1000000, "\x00\xff", "latin1");
  results.bytes = bytes.equals(await call("calculator.echo", bytes));
  results.many = await Promise.all(Array.from({ length: 500 }, (_, i) => call("calculator.add", i, 1)));
  for (const method of ["calculator.fail", "calculator.nothing", "calculator.count"]) {
    results[method] = await refusal(method);
  }
  await client.notify("guestbook.sign", name);
  results.signed = await call("guestbook.signed", name);
  client.close();
  console.log(JSON.stringify(results));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
